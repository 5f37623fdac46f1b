//! Charts as inline SVG, each with the table that says the same.
//!
//! Colours, dashes and fonts are classes of `style.css`, so that light and dark are one drawing.
//! Start at [`lines`], [`bars`] or [`seats`]; here is what they share.

pub mod bars;
pub mod lines;
pub mod seats;

/// How wide a letter of the charts' 12 px text is, about: browsers differ, and labels need room.
const LETTER: f64 = 6.6;

/// Round steps that cut a range into about five: 1, 2 or 5 times a power of ten.
fn ticks(from: f64, to: f64) -> Vec<f64> {
    let range = to - from;
    if !range.is_finite() || range <= 0.0 {
        return vec![from];
    }
    let rough = range / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(power * 10.0);
    let first = (from / step).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last).map(|nth| nth as f64 * step).collect()
}

/// `1,200`, `12.5`, `0.034`: three figures that count, or all of a whole number.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "—".into();
    }
    let size = value.abs();
    if size >= 100.0 || value.fract() == 0.0 {
        let digits = format!("{:.0}", size);
        let mut grouped = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return if value < 0.0 && digits != "0" { format!("-{grouped}") } else { grouped };
    }
    let places = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn wide(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// A label that has to fit; the table has all of it.
pub fn clip(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::{number, ticks};

    #[test]
    fn numbers_read_well() {
        let read = [0.0, 3.0, 1234567.0, 0.12345, 12.5, 99.96, -1500.2].map(number);
        assert_eq!(read, ["0", "3", "1,234,567", "0.123", "12.5", "100", "-1,500"]);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.0, 0.0), [0.0]);
    }
}
