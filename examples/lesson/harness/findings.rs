//! What a chapter brings home: claims of the lesson with a figure and a verdict, exhibits that
//! show how it came about, and what it adds to the table, the audit sheet and the questions.
//!
//! Start at [`Findings`]. How it is printed is `report`'s business.

use super::exhibit::Exhibit;

/// Words of the lesson, with the heading they stand under.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    pub heading: &'static str,
    pub words: &'static str,
}

/// The lesson's heading and words.
pub const fn quote(heading: &'static str, words: &'static str) -> Quote {
    Quote { heading, words }
}

/// One claim, and what this run says about it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// `chapter.what`, unique in a run.
    pub id: String,
    pub lesson: Quote,
    /// The figure, with its unit.
    pub measured: String,
    /// How many observations stand behind the figure.
    pub n: u64,
    /// Whether what the lesson says is what was seen; `None` where it was not tested.
    pub holds: Option<bool>,
    /// What `holds` must be for the run to succeed. `None` for times and memory, which depend on
    /// the machine, and for what is not tested: they never decide the exit code.
    pub expected: Option<bool>,
    /// Why it holds or does not, or why it was not tested: one sentence.
    pub why: String,
}

impl Claim {
    /// Whether this claim lets the run succeed.
    pub fn is_as_expected(&self) -> bool {
        self.expected.is_none() || self.holds == self.expected
    }
}

/// The columns of the lesson's comparison table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    Sticky,
    Replication,
    Store,
    Jwt,
}

/// Its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    Scalability,
    Availability,
    Complexity,
    Latency,
    ServerMemory,
    Revocation,
    CrossService,
}

/// The figure of this run that supports, or does not support, the lesson's word in a cell. Several
/// for one cell are printed one under the other.
#[derive(Clone, Debug)]
pub struct Cell {
    pub aspect: Aspect,
    pub column: Column,
    pub figure: String,
    /// `None` where a figure gives no verdict, as for complexity.
    pub holds: Option<bool>,
}

/// Step 1 of the lesson's conversion, filled in for one strategy.
#[derive(Clone, Debug)]
pub struct AuditRow {
    pub strategy: String,
    pub where_sessions_live: String,
    pub in_memory: String,
    pub on_restart: String,
    pub any_server: String,
}

/// Everything a chapter found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub claims: Vec<Claim>,
    pub exhibits: Vec<Exhibit>,
    pub cells: Vec<Cell>,
    pub audit: Vec<AuditRow>,
    /// Figures of this run for the lesson's practice questions: (question 1 to 7, one line).
    pub answers: Vec<(u8, String)>,
    /// The lesson's ten key concepts: (1 to 10, what this chapter showed of it, in one line).
    pub concepts: Vec<(u8, String)>,
    /// What this run leaves out, one sentence each.
    pub left_out: Vec<String>,
}

impl Findings {
    /// A count that must come out as the lesson says.
    pub fn holds(
        &mut self,
        id: &str,
        lesson: Quote,
        measured: impl Into<String>,
        n: usize,
        holds: bool,
        why: &str,
    ) {
        self.add(id, lesson, measured.into(), n, Some(holds), Some(true), why);
    }

    /// A count that must contradict the claim: it is refuted here, and that is what is shown.
    pub fn fails(
        &mut self,
        id: &str,
        lesson: Quote,
        measured: impl Into<String>,
        n: usize,
        holds: bool,
        why: &str,
    ) {
        self.add(id, lesson, measured.into(), n, Some(holds), Some(false), why);
    }

    /// A time or an amount of memory: it has a verdict, but a slow machine must not fail the run.
    pub fn weigh(
        &mut self,
        id: &str,
        lesson: Quote,
        measured: impl Into<String>,
        n: usize,
        holds: bool,
        why: &str,
    ) {
        self.add(id, lesson, measured.into(), n, Some(holds), None, why);
    }

    /// What one machine, or this scale, cannot say.
    pub fn untested(&mut self, id: &str, lesson: Quote, why: &str) {
        self.add(id, lesson, String::new(), 0, None, None, why);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a claim, named at the four doors above")]
    fn add(
        &mut self,
        id: &str,
        lesson: Quote,
        measured: String,
        n: usize,
        holds: Option<bool>,
        expected: Option<bool>,
        why: &str,
    ) {
        assert!(self.claims.iter().all(|claim| claim.id != id), "two claims are called {id}");
        let (id, why, n) = (id.to_owned(), why.to_owned(), n as u64);
        self.claims.push(Claim { id, lesson, measured, n, holds, expected, why });
    }

    pub fn show(&mut self, exhibit: impl Into<Exhibit>) {
        self.exhibits.push(exhibit.into());
    }

    pub fn cell(&mut self, aspect: Aspect, column: Column, figure: impl Into<String>, holds: Option<bool>) {
        self.cells.push(Cell { aspect, column, figure: figure.into(), holds });
    }

    /// A line of the answer to a practice question.
    pub fn answer(&mut self, question: u8, line: impl Into<String>) {
        assert!((1..=7).contains(&question));
        self.answers.push((question, line.into()));
    }

    /// What this chapter showed of a key concept.
    pub fn concept(&mut self, number: u8, shown: impl Into<String>) {
        assert!((1..=10).contains(&number));
        self.concepts.push((number, shown.into()));
    }

    pub fn left_out(&mut self, sentence: impl Into<String>) {
        self.left_out.push(sentence.into());
    }
}
