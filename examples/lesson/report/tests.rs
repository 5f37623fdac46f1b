//! The three ways to tell a run, tried on one that is invented.

use super::terminal::layout::{Page, length};
use super::{address, fixture, html, json, terminal};

const PLAIN: Page = Page { width: 100, colour: false };

fn printed(page: &Page) -> String {
    let run = fixture::run();
    let chapters = run.told.iter().zip(1..).map(|(told, number)| {
        terminal::before(page, told.chapter, number, run.told.len()) + &terminal::after(page, told)
    });
    chapters.collect::<String>() + &terminal::ending::whole(page, &run)
}

#[test]
fn the_terminal_says_every_verdict() {
    let printed = printed(&PLAIN);
    // For a person to look at, with `--nocapture`.
    println!("{printed}");
    for said in [
        "\n    holds\n",
        "does not hold, as expected here",
        "holds (time or memory: not counted)",
        "does not hold (time or memory: not counted)",
        "not tested here",
        "UNEXPECTED: does not hold",
        "“Server failure = lost sessions”",
        "100 of 100 sessions lost (n 100)",
        "p50 58 µs, p99 140 µs (n 1000)\n",
        "FAILED: replica 2: connection refused",
        "Guess: How many",
        "not measured in",
        "What's in server",
        "6 claims: 1 held, 1 refuted as expected, 1 unexpected, 1 not tested; of 2 on",
        "1 chapter ended in an error",
        "scale small, seed 9, store embedded",
    ] {
        assert!(printed.contains(said), "`{said}` is not in\n{printed}");
    }
}

#[test]
fn the_terminal_keeps_to_its_width_and_to_plain_text() {
    for width in [72, 100] {
        let printed = printed(&Page { width, colour: false });
        let long: Vec<&str> = printed.lines().filter(|line| length(line) > width).collect();
        assert_eq!(long, [""; 0]);
        assert!(!printed.contains('\x1b'));
    }
    assert!(printed(&Page { width: 100, colour: true }).contains("\x1b[1;97;41mUNEXPECTED"));
}

#[test]
fn the_questions_have_their_answers() {
    let printed = terminal::ending::questions(&PLAIN, &fixture::run());
    assert!(printed.contains("Q1 Carts") && printed.contains("     Move them out.\n"));
    assert_eq!(printed.matches("not answered in this run").count(), 6);
}

#[test]
fn the_json_has_these_keys_and_no_others() {
    let json = json::whole(&fixture::run()).expect("it is plain data");
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let keys = |value: &serde_json::Value| {
        let keys = value.as_object().expect("an object").keys().cloned();
        keys.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&value), "chapters scale seed store");
    assert_eq!(keys(&value["chapters"][0]), "claims name");
    assert_eq!(keys(&value["chapters"][1]), "claims error name");
    let claims = value["chapters"][0]["claims"].as_array().expect("claims");
    assert_eq!(claims.len(), 6);
    for claim in claims {
        assert_eq!(keys(claim), "expected holds id lesson measured n why");
    }
    assert_eq!((&claims[1]["holds"], &claims[1]["expected"]), (&false.into(), &false.into()));
    assert!(claims[2]["expected"].is_null() && claims[4]["holds"].is_null());
    assert_eq!(claims[5]["lesson"], "Pattern <1>: All state in managed services & none here");
    assert!(json.find("\"seed\"") < json.find("\"scale\""));
}

#[test]
fn the_page_is_well_formed_escaped_and_alone() {
    let page = html::whole(&fixture::run());
    balanced(&page);
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    assert!(!page.contains("@import") && !page.contains("url(") && !page.contains(" src="));
    assert!(page.contains("Pattern &lt;1&gt;") && page.contains("&lt;b&gt;42"));
    assert!(!page.contains("<b>42") && !page.contains("that <fails>"));
    // The page for a person to look at, where somebody asks for it.
    if let Some(file) = std::env::var_os("LESSON_FIXTURE") {
        std::fs::write(file, &page).expect("a place for the page");
    }
}

#[test]
fn every_chart_has_its_table_and_every_link_leads_somewhere() {
    let page = html::whole(&fixture::run());
    let figures: Vec<&str> =
        page.split("<figure").skip(1).map(|rest| rest.split("</figure>").next().unwrap()).collect();
    let charts: Vec<_> = figures.iter().filter(|figure| figure.contains("<svg")).collect();
    assert_eq!(charts.len(), 3);
    assert!(charts.iter().all(|chart| chart.contains("<details>") && chart.contains("<tbody>")));
    for svg in page.split("<svg").skip(1).filter(|svg| !svg.starts_with(" class=\"key\"")) {
        assert!(svg.contains("<title") && svg.contains("<desc") && svg.contains("aria-labelledby"));
    }
    let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let once: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(once.len(), ids.len(), "two elements have one id");
    for link in page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(once.contains(&link), "#{link}");
    }
}

#[test]
fn headings_never_skip_a_level() {
    let page = html::whole(&fixture::run());
    let levels = page.match_indices("<h").filter_map(|(at, _)| page[at + 2..].chars().next()?.to_digit(10));
    let levels: Vec<u32> = levels.collect();
    assert_eq!((levels[0], levels.iter().filter(|level| **level == 1).count()), (1, 1));
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
}

#[test]
fn an_address_can_be_clicked_whatever_the_folder_is_called() {
    assert_eq!(address(std::path::Path::new("/a b/ü.html")), "file:///a%20b/%C3%BC.html");
}

/// Every element that is opened is closed, in order.
fn balanced(page: &str) {
    const VOID: [&str; 4] = ["meta", "br", "hr", "link"];
    let mut open = Vec::new();
    for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let name = tag.split_whitespace().next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "closed out of turn"),
            None if name.starts_with('!') || VOID.contains(&name) => {}
            None => open.push(name),
        }
    }
    assert_eq!(open, [""; 0]);
}
