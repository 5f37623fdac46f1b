//! The shop as a browser sees it.
//!
//! Start at [`render`]. The look and the script are in `page.html`.

use super::memory::Visitor;
use crate::admin::page::escape;

const PAGE: &str = include_str!("page.html");

/// The whole page. Everything that a visitor typed is escaped here.
pub(super) fn render(name: &str, hits: u64, visitor: &Visitor, notice: &str) -> String {
    let (user, cart) = match visitor {
        Visitor::Known { user, cart } => (user.as_str(), cart.as_slice()),
        Visitor::Stranger | Visitor::Nobody => ("", &[][..]),
    };
    let known = matches!(visitor, Visitor::Known { .. });
    let notice = match visitor {
        Visitor::Stranger if notice.is_empty() => {
            "You have a session, but in another backend's memory. Here you are logged out."
        }
        _ => notice,
    };
    let hidden = |hide: bool| if hide { "hidden".to_owned() } else { String::new() };
    fill(PAGE, |key| match key {
        "name" => escape(name),
        "hue" => hue(name).to_string(),
        "hits" => hits.to_string(),
        "user" => escape(user),
        "items" => cart.iter().map(|item| format!("<li>{}</li>", escape(item))).collect(),
        "notice" => escape(notice),
        "hide_notice" => hidden(notice.is_empty()),
        "hide_login" => hidden(known),
        "hide_cart" => hidden(!known),
        "hide_empty" => hidden(!cart.is_empty()),
        other => unreachable!("the page has no value for `{other}`"),
    })
}

/// Puts values for `{{keys}}`, in one pass: a value is never looked through for keys.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (key, after) = after.split_once("}}").expect("every key in the page is closed");
        out += before;
        out += &value(key);
        rest = after;
    }
    out + rest
}

/// A colour of its own for each backend, so that a change of backend is seen before it is read.
fn hue(name: &str) -> u32 {
    name.bytes()
        .fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)).wrapping_mul(137))
        % 360
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_visitor_typed_is_shown_and_never_obeyed() {
        let visitor =
            Visitor::Known { user: "<script>{{items}}".to_owned(), cart: vec!["\"><img src=x>".to_owned()] };
        let page = render("b1", 3, &visitor, "");
        assert!(page.contains("&lt;script&gt;{{items}}"), "{page}");
        assert!(page.contains("<li>&quot;&gt;&lt;img src=x&gt;</li>"), "{page}");
        assert!(!page.contains("<img") && page.matches("<script>").count() == 1);
    }

    #[test]
    fn backends_differ_in_colour() {
        let hues = ["b1", "b2", "b3", "b4"].map(hue);
        for (at, one) in hues.iter().enumerate() {
            for other in &hues[at + 1..] {
                let apart = one.abs_diff(*other);
                assert!(apart.min(360 - apart) >= 40, "{hues:?}");
            }
        }
    }
}
