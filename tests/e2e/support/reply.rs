//! What a scripted backend does once it has read a request: steps, one after the other.

/// A script for one request. After its last step the connection takes the next request.
#[derive(Clone, Debug, Default)]
pub struct Reply(pub Vec<Step>);

#[derive(Clone, Debug)]
pub enum Step {
    /// A polite answer that names the backend and says how long it is.
    Answer {
        status: u16,
        fields: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// Exactly these bytes.
    Send(Vec<u8>),
    /// Waits for `Backend::release`, whether or not it was told to hold.
    Park,
    /// Nothing more until the other side closes.
    Stall,
    Close,
    Reset,
    /// Raw bytes back as they come, until the other side ends.
    EchoBytes,
    /// The 101 that the request asked for, then every WebSocket message back as `name: message`.
    WebSocket,
}

impl Reply {
    pub fn text(body: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::Answer { status: 200, fields: Vec::new(), body: body.into() }])
    }

    pub fn status(status: u16) -> Self {
        Self(vec![Step::Answer { status, fields: Vec::new(), body: Vec::new() }])
    }

    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::Send(bytes.into())])
    }

    pub fn close() -> Self {
        Self(vec![Step::Close])
    }

    pub fn reset() -> Self {
        Self(vec![Step::Reset])
    }

    /// Never answers.
    pub fn stall() -> Self {
        Self(vec![Step::Stall])
    }

    /// Switches to `protocol`, says `hello`, and echoes bytes.
    pub fn upgrade(protocol: &str, hello: &str) -> Self {
        let head =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        Self(vec![Step::Send([head.as_bytes(), hello.as_bytes()].concat()), Step::EchoBytes])
    }

    pub fn websocket() -> Self {
        Self(vec![Step::WebSocket])
    }

    /// Adds a header to the answer before.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match self.0.last_mut() {
            Some(Step::Answer { fields, .. }) => fields.push((name.into(), value.into())),
            _ => panic!("a header belongs to an answer"),
        }
        self
    }

    pub fn then(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }

    /// Goes on when it is released.
    pub fn then_park(mut self) -> Self {
        self.0.push(Step::Park);
        self
    }

    pub fn then_close(self) -> Self {
        self.then(Self::close())
    }

    pub fn then_reset(self) -> Self {
        self.then(Self::reset())
    }

    pub fn then_stall(self) -> Self {
        self.then(Self::stall())
    }
}
