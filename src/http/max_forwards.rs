//! `Max-Forwards` on OPTIONS (RFC 9110 section 7.6.2): how many proxies a request may still pass.
//!
//! TRACE, the other method that it is for, is refused; on all others it means nothing.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};

static MAX_FORWARDS: HeaderName = HeaderName::from_static("max-forwards");

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It may go on, with one hop less where it counts them.
    OnItsWay,
    /// It may not be forwarded: this proxy is the one that is asked.
    Here,
}

/// Counts one hop. What is no number, or said twice, is passed on as it came.
pub fn spend(method: &Method, headers: &mut HeaderMap) -> Spent {
    if method != Method::OPTIONS {
        return Spent::OnItsWay;
    }
    let mut lines = headers.get_all(&MAX_FORWARDS).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Spent::OnItsWay };
    match hops(line) {
        None => Spent::OnItsWay,
        Some(0) => Spent::Here,
        Some(hops) => {
            headers.insert(&MAX_FORWARDS, HeaderValue::from(hops - 1));
            Spent::OnItsWay
        }
    }
}

/// A number too large to count to is as good as the largest.
fn hops(line: &HeaderValue) -> Option<u32> {
    let digits = line.to_str().ok()?.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of OPTIONS with these lines.
    fn spent(method: &Method, lines: &[&str]) -> (Spent, Vec<String>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&MAX_FORWARDS, HeaderValue::from_str(line).unwrap());
        }
        let spent = spend(method, &mut headers);
        let lines = headers.get_all(&MAX_FORWARDS).iter().map(|line| line.to_str().unwrap().to_owned());
        (spent, lines.collect())
    }

    #[test]
    fn options_counts_down_and_ends_here_at_nought() {
        for (line, left) in [
            ("1", "0"),
            ("10", "9"),
            ("007", "6"),
            ("4294967295", "4294967294"),
            ("99999999999999999999", "4294967294"),
        ] {
            assert_eq!(spent(&Method::OPTIONS, &[line]), (Spent::OnItsWay, vec![left.to_owned()]), "{line}");
        }
        for nought in ["0", "00"] {
            assert_eq!(spent(&Method::OPTIONS, &[nought]).0, Spent::Here);
        }
    }

    #[test]
    fn what_is_no_number_or_no_options_is_left_as_it_is() {
        for lines in [&[][..], &[""], &["-1"], &["+0"], &["0, 0"], &["0x0"], &["many"], &["0", "0"]] {
            let same = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(spent(&Method::OPTIONS, lines), (Spent::OnItsWay, same));
        }
        assert_eq!(spent(&Method::GET, &["0"]), (Spent::OnItsWay, vec!["0".to_owned()]));
    }
}
