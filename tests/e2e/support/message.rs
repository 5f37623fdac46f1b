//! HTTP/1 messages as they were on the wire: nothing is normalised but what a test looks up.

/// A request as a backend received it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The exact bytes, the empty line included.
    pub head: Vec<u8>,
    pub method: String,
    pub target: String,
    pub fields: Fields,
    /// What has come of the body so far, without framing.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The body has come to its end.
    pub whole: bool,
    /// Which connection it came by, counted from 1.
    pub connection: usize,
}

/// A response as a client received it.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The exact bytes, the empty line included.
    pub head: Vec<u8>,
    pub status: u16,
    pub fields: Fields,
    /// Without framing.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The body ended where its framing said. One that runs until the close is always whole.
    pub whole: bool,
}

/// Header lines in their order, as spelled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    pub fn parse(head: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        };
        Self(head.split("\r\n").filter(|text| !text.is_empty()).map(line).collect())
    }

    /// The values of every line of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the one line of that name; several are a failure.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "several lines of {name}: {all:?}");
        all.first().copied()
    }
}

impl Request {
    /// Reads a head that ends with its empty line.
    pub fn parse(head: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&head).into_owned();
        let (line, fields) = text.split_once("\r\n").unwrap_or((&text, ""));
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        Self { method: word(), target: word(), fields: Fields::parse(fields), head, ..Self::default() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Response {
    /// Reads a head that ends with its empty line.
    pub fn parse(head: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&head).into_owned();
        let (line, fields) = text.split_once("\r\n").unwrap_or((&text, ""));
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        Self { status, fields: Fields::parse(fields), head, ..Self::default() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The backend that answered; nothing where the proxy itself did.
    pub fn served_by(&self) -> &str {
        self.header("x-served-by").unwrap_or_default()
    }
}
