//! A run on the terminal, as text that is composed here and printed by [`super::Screen`].
//!
//! Start at [`after`]: a chapter's claims. [`exhibit`] has tables and small charts, [`ending`]
//! what stands at the end of a run, [`layout`] wraps and aligns.

pub mod ending;
mod exhibit;
pub mod layout;

use layout::{Ink, Page};

use super::{lasted, verdict::Verdict};
use crate::harness::{Chapter, Claim, Told};

/// What a chapter is about to do, and what to guess before the figures come.
pub fn before(page: &Page, chapter: &Chapter, number: usize, of: usize) -> String {
    let title = format!("{number} of {of} · {} · {}", chapter.name, chapter.title);
    let mut text = page.heading(&title);
    text += &page.paragraph("  ", Ink::Plain, chapter.about);
    text += &page.paragraph("  Guess: ", Ink::Bold, chapter.guess);
    text + "\n"
}

/// What a chapter found.
pub fn after(page: &Page, told: &Told) -> String {
    let mut text = String::from("\n");
    if let Some(error) = &told.failed {
        text += &page.paragraph("  ", Ink::Alarm, &format!("FAILED: {error}"));
    }
    for exhibit in &told.findings.exhibits {
        text += &exhibit::show(page, exhibit);
        text += "\n";
    }
    for one in &told.findings.claims {
        text += &claim(page, one);
        text += "\n";
    }
    text + &page.paint(Ink::Dim, &format!("  {} took {}.", told.chapter.name, lasted(told.took))) + "\n"
}

/// The lesson's words, the figure, and what the figure says of the words.
fn claim(page: &Page, claim: &Claim) -> String {
    let verdict = Verdict::of(claim);
    let ink = ink(verdict);
    let mark = page.paint(ink, verdict.mark());
    let mut text = format!("  {mark} {}\n", page.paint(Ink::Dim, claim.lesson.heading));
    text += &page.paragraph("    ", Ink::Bold, &format!("“{}”", claim.lesson.words));
    if claim.holds.is_some() || !claim.measured.is_empty() {
        text += &page.paragraph("    ", Ink::Plain, &figure(claim));
    }
    let word = Verdict::word(claim);
    text += &format!("    {}\n", page.paint(ink, word));
    if !claim.why.is_empty() {
        text += &page.paragraph("    ", Ink::Plain, &claim.why);
    }
    text
}

/// The figure with the number of observations behind it.
pub fn figure(claim: &Claim) -> String {
    // A spread of times says its n itself.
    let said = claim.measured.contains("(n ") || claim.n == 0;
    if said { claim.measured.clone() } else { format!("{} (n {})", claim.measured, claim.n) }
}

fn ink(verdict: Verdict) -> Ink {
    match verdict {
        Verdict::Holds | Verdict::Weighed(true) => Ink::Good,
        Verdict::Refuted | Verdict::Weighed(false) => Ink::Bad,
        Verdict::Unexpected => Ink::Alarm,
        Verdict::NotTested => Ink::Dim,
    }
}
