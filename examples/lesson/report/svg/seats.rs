//! The seat map: one dot per user at the replica that answered, filled while the session is whole,
//! hollow when it is lost, a diamond when the user sits elsewhere than in the frame before.
//!
//! Start at [`draw`]. [`Seating`] gives each user a place that they keep as long as they stay with
//! their replica, so that the eye sees who moved. All dots of a kind are one path: ten thousand
//! elements would make a page slow.

use maud::{Markup, html};

use crate::harness::exhibit::{Frame, SeatMap, SeatRow, Table};

/// Dots in a line.
const ACROSS: usize = 25;
const PITCH: f64 = 7.0;
const WIDTH: f64 = ACROSS as f64 * PITCH;
/// The line that names a replica, above its dots.
const NAME: f64 = 14.0;
const BETWEEN: f64 = 6.0;
const NOBODY: &str = "nobody";

/// All replicas that a row ever has, and where each user sits in each frame.
pub struct Seating {
    pub bands: Vec<String>,
    /// How many lines of dots each band needs at most.
    lines: Vec<usize>,
    /// Per frame and user: band and place in it.
    places: Vec<Vec<(usize, usize)>>,
}

impl Seating {
    pub fn of(row: &SeatRow) -> Self {
        let mut bands: Vec<String> = Vec::new();
        for name in row.frames.iter().flat_map(|frame| &frame.replicas) {
            if !bands.contains(name) {
                bands.push(name.clone());
            }
        }
        let nobody = |frame: &Frame| frame.seats.iter().any(|seat| seat.replica >= frame.replicas.len());
        if row.frames.iter().any(nobody) {
            bands.push(NOBODY.into());
        }
        let mut places: Vec<Vec<(usize, usize)>> = Vec::new();
        for frame in &row.frames {
            let seated = seat(frame, &bands, places.last());
            places.push(seated);
        }
        let most = |band| {
            let inside = places.iter().flatten().filter(|place| place.0 == band);
            inside.map(|place| place.1 + 1).max().unwrap_or(0)
        };
        let lines = (0..bands.len()).map(|band| most(band).div_ceil(ACROSS).max(1)).collect();
        Self { bands, lines, places }
    }

    /// Where a band's name stands.
    fn top(&self, band: usize) -> f64 {
        self.lines[..band].iter().map(|lines| NAME + *lines as f64 * PITCH + BETWEEN).sum()
    }
}

/// Whoever stays keeps the place; whoever comes takes the first that is free.
fn seat(frame: &Frame, bands: &[String], before: Option<&Vec<(usize, usize)>>) -> Vec<(usize, usize)> {
    let band = |replica: usize| {
        let name = frame.replicas.get(replica).map_or(NOBODY, |name| name);
        bands.iter().position(|band| band == name).unwrap_or(0)
    };
    let place_of = |user: usize| before.and_then(|places| places.get(user)).copied();
    let stays = |user: usize, band: usize| place_of(user).filter(|place| place.0 == band);
    let mut taken: Vec<Vec<bool>> = vec![vec![false; frame.seats.len() + 1]; bands.len()];
    let mut take = |band: usize, place: usize| {
        let length = taken[band].len().max(place + 1);
        taken[band].resize(length, false);
        taken[band][place] = true;
    };
    let users: Vec<usize> = frame.seats.iter().map(|seat| band(seat.replica)).collect();
    let kept: Vec<_> = users.iter().enumerate().map(|(user, band)| stays(user, *band)).collect();
    kept.iter().flatten().for_each(|(band, place)| take(*band, *place));
    let mut next = vec![0; bands.len()];
    let sit = |(band, kept): (&usize, &Option<(usize, usize)>)| {
        kept.unwrap_or_else(|| {
            while taken[*band].get(next[*band]).copied().unwrap_or(false) {
                next[*band] += 1;
            }
            next[*band] += 1;
            (*band, next[*band] - 1)
        })
    };
    users.iter().zip(&kept).map(sit).collect()
}

/// One frame; the frames of a row are drawn with the same `seating` and line up.
pub fn draw(row: &SeatRow, seating: &Seating, nth: usize, id: &str) -> Markup {
    let frame = &row.frames[nth];
    let height = seating.top(seating.bands.len()) - BETWEEN + 2.0;
    let count = Count::of(frame, |_| true);
    html! {
        svg viewBox=(format!("0 0 {WIDTH:.0} {height:.0}")) role="img"
            aria-labelledby=(format!("{id}-t {id}-d")) {
            title id=(format!("{id}-t")) { (row.name) ", " (frame.caption) }
            desc id=(format!("{id}-d")) { (count.sentence()) }
            @for (band, name) in seating.bands.iter().enumerate() {
                @let here = Count::of(frame, |replica| name_of(frame, replica) == name);
                @let there = name == NOBODY || frame.replicas.contains(name);
                @let y = seating.top(band);
                text.seat x="0" y=(format!("{:.1}", y + 9.5)) { (name) }
                text.seat.figure x=(WIDTH) y=(format!("{:.1}", y + 9.5)) text-anchor="end" {
                    @if there { (here.short()) } @else { "not there" }
                }
                @let area = seating.lines[band] as f64 * PITCH;
                rect class=(if there { "band" } else { "band gone" }) x="0" y=(format!("{:.1}", y + NAME))
                    width=(WIDTH) height=(format!("{area:.1}")) {}
            }
            @for (class, moved, kept) in KINDS {
                @let dots = dots(frame, seating, nth, moved, kept);
                @if !dots.is_empty() { path class=(class) d=(dots) {} }
            }
        }
    }
}

/// Class, moved, kept.
const KINDS: [(&str, bool, bool); 4] =
    [("kept", false, true), ("kept moved", true, true), ("lost", false, false), ("lost moved", true, false)];

fn dots(frame: &Frame, seating: &Seating, nth: usize, moved: bool, kept: bool) -> String {
    let users = frame.seats.iter().zip(&seating.places[nth]);
    let users = users.filter(|(seat, _)| (seat.moved, seat.kept) == (moved, kept));
    let dot = |(_, (band, place)): (_, &(usize, usize))| {
        let x = ((place % ACROSS) as f64 + 0.5) * PITCH;
        let y = seating.top(*band) + NAME + ((place / ACROSS) as f64 + 0.5) * PITCH;
        shape(x, y, moved)
    };
    users.map(dot).collect()
}

/// A diamond for who moved, a disc for who stayed.
pub fn shape(x: f64, y: f64, moved: bool) -> String {
    if moved {
        format!("M{x:.1} {:.1}l2.8 2.8l-2.8 2.8l-2.8-2.8z", y - 2.8)
    } else {
        format!("M{:.1} {y:.1}a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0z", x - 2.2)
    }
}

/// How many users, and what became of them.
#[derive(Clone, Copy, Default)]
pub struct Count {
    pub all: usize,
    pub lost: usize,
    pub moved: usize,
}

impl Count {
    pub fn of(frame: &Frame, here: impl Fn(usize) -> bool) -> Self {
        let seats = || frame.seats.iter().filter(|seat| here(seat.replica));
        Self {
            all: seats().count(),
            lost: seats().filter(|seat| !seat.kept).count(),
            moved: seats().filter(|seat| seat.moved).count(),
        }
    }

    pub fn sentence(&self) -> String {
        format!("{} users: {} kept, {} lost, {} moved", self.all, self.all - self.lost, self.lost, self.moved)
    }

    fn short(&self) -> String {
        if self.lost == 0 { self.all.to_string() } else { format!("{} ({} lost)", self.all, self.lost) }
    }
}

fn name_of(frame: &Frame, replica: usize) -> &str {
    frame.replicas.get(replica).map_or(NOBODY, |name| name)
}

/// What the drawing says: a row per frame, a column per replica.
pub fn table(map: &SeatMap) -> Table {
    let mut bands: Vec<String> = Vec::new();
    for band in map.rows.iter().flat_map(|row| Seating::of(row).bands) {
        if !bands.contains(&band) {
            bands.push(band);
        }
    }
    // Nobody comes last, whichever row has it.
    bands.sort_by_key(|band| band == NOBODY);
    let row = |row: &SeatRow, frame: &Frame| {
        let all = Count::of(frame, |_| true);
        let here = |band: &String| match Count::of(frame, |replica| name_of(frame, replica) == band) {
            Count { all: 0, .. } if band != NOBODY && !frame.replicas.contains(band) => "—".to_owned(),
            count => count.short(),
        };
        let sums = [all.all - all.lost, all.lost, all.moved].map(|sum| sum.to_string());
        let head = [row.name.clone(), frame.caption.clone()];
        head.into_iter().chain(bands.iter().map(here)).chain(sums).collect::<Vec<_>>()
    };
    let rows =
        map.rows.iter().flat_map(|strategy| strategy.frames.iter().map(move |frame| (strategy, frame)));
    let columns = ["Strategy", "Moment"].into_iter().chain(bands.iter().map(String::as_str));
    let columns = columns.chain(["Kept", "Lost", "Moved"]).map(str::to_owned).collect();
    let rows = rows.map(|(strategy, frame)| row(strategy, frame)).collect();
    Table { title: map.title.clone(), note: String::new(), columns, rows }
}
