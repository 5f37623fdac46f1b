//! What can be shown: tables, lines over time, bars, seat maps and printed text. Plain data; how
//! it is drawn is `report`'s business. Every chart can be read as a table too.

/// Something to look at, under a title and with a note that says what to see in it.
#[derive(Clone, Debug)]
pub enum Exhibit {
    Table(Table),
    Lines(Lines),
    Bars(Bars),
    Seats(SeatMap),
    Text(Text),
}

#[derive(Clone, Debug, Default)]
pub struct Table {
    pub title: String,
    pub note: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A few curves over one axis.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    pub title: String,
    pub note: String,
    /// Label with its unit, such as `seconds`.
    pub x: String,
    pub y: String,
    pub series: Vec<Series>,
    /// Vertical lines: at which x, and what happened there.
    pub marks: Vec<(f64, String)>,
}

#[derive(Clone, Debug, Default)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Groups of bars on one scale that begins at 0.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    pub title: String,
    pub note: String,
    pub unit: String,
    /// Group name, and in it (bar name, value).
    pub groups: Vec<(String, Vec<(String, f64)>)>,
}

/// One dot per user in the seat of the replica that answered; hollow when the session is lost.
/// One row of frames per strategy, one frame per moment.
#[derive(Clone, Debug, Default)]
pub struct SeatMap {
    pub title: String,
    pub note: String,
    pub rows: Vec<SeatRow>,
}

#[derive(Clone, Debug, Default)]
pub struct SeatRow {
    /// Such as `memory × ip_hash`.
    pub name: String,
    pub frames: Vec<Frame>,
}

#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Such as `after replica 1 was killed`.
    pub caption: String,
    /// Everybody who can have a seat, in order; users that nobody served come last, as `nobody`.
    pub replicas: Vec<String>,
    /// One per user, in the order of users, so that a user keeps their place in the drawing.
    pub seats: Vec<Seat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Index in [`Frame::replicas`]; that length is `nobody`.
    pub replica: usize,
    /// Sits elsewhere than in the frame before.
    pub moved: bool,
    /// Logged in, with all that was put in the cart.
    pub kept: bool,
}

/// Something printed: a token's parts, a piece of configuration, before and after.
#[derive(Clone, Debug, Default)]
pub struct Text {
    pub title: String,
    pub note: String,
    pub text: String,
}

macro_rules! exhibits {
    ($($kind:ident of $shape:ident),*) => {
        $(impl From<$shape> for Exhibit {
            fn from(exhibit: $shape) -> Self {
                Self::$kind(exhibit)
            }
        })*
    };
}

exhibits!(Table of Table, Lines of Lines, Bars of Bars, Seats of SeatMap, Text of Text);
