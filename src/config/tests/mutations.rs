//! Files that nobody would write: whatever the text, there is a plan or a problem with a place.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Edit {
    DropLine(usize),
    RepeatLine(usize),
    SwapLines(usize, usize),
    Replace(usize, String),
    Cut(usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let scrap = prop_oneof![
        "[\\[\\]{}=\"'#.,0-9a-z\n -]{0,6}",
        Just("\"\"".to_owned()),
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        Just("é\u{1f600}".to_owned()),
        Just("-9223372036854775808".to_owned()),
        Just("1e400".to_owned()),
        Just("\r\n".to_owned()),
    ];
    prop_oneof![
        any::<usize>().prop_map(Edit::DropLine),
        any::<usize>().prop_map(Edit::RepeatLine),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Edit::SwapLines(a, b)),
        (any::<usize>(), scrap).prop_map(|(at, scrap)| Edit::Replace(at, scrap)),
        (any::<usize>(), 0usize..12).prop_map(|(at, length)| Edit::Cut(at, length)),
    ]
}

fn apply(text: &str, edit: &Edit) -> String {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let count = lines.len();
    let line = |at: &usize| at % count;
    let cut = |at: &usize, length: usize, scrap: &str| {
        let start = text.floor_char_boundary(at % (text.len() + 1));
        let end = text.ceil_char_boundary((start + length).min(text.len()));
        format!("{}{scrap}{}", &text[..start], &text[end..])
    };
    match edit {
        Edit::Replace(at, scrap) => return cut(at, scrap.len(), scrap),
        Edit::Cut(at, length) => return cut(at, *length, ""),
        Edit::DropLine(at) => drop(lines.remove(line(at))),
        Edit::RepeatLine(at) => lines.insert(line(at), lines[line(at)]),
        Edit::SwapLines(a, b) => lines.swap(line(a), line(b)),
    }
    lines.join("\n")
}

fn has_a_plan_or_problems_with_places(text: &str) -> Result<(), TestCaseError> {
    let problems = match compile(text, &origin()) {
        Ok(compiled) => compiled.warnings,
        Err(problems) => {
            prop_assert!(problems.errors() > 0);
            problems
        }
    };
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in &problems {
        prop_assert!((1..=lines.len()).contains(&problem.line), "{:?}", problem);
        prop_assert_eq!(&problem.source_line, lines[problem.line - 1].trim_end_matches('\r'));
        prop_assert!(
            (1..=problem.source_line.chars().count() + 2).contains(&problem.column),
            "{:?}",
            problem
        );
        prop_assert!(!problem.message.is_empty());
    }
    prop_assert_eq!(problems.render(false).is_empty(), problems.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_reference_compiles_or_has_problems(edits in proptest::collection::vec(edit(), 1..6)) {
        let text = edits.iter().fold(REFERENCE.to_owned(), |text, edit| apply(&text, edit));
        has_a_plan_or_problems_with_places(&text)?;
    }

    #[test]
    fn any_text_compiles_or_has_problems(text in "(\\PC|[\\[\\]{}=\"'#.,\n]){0,80}") {
        has_a_plan_or_problems_with_places(&text)?;
    }
}

/// Each line of the reference alone with a value of every kind: the checks meet what serde would
/// refuse before serde does.
#[test]
fn no_value_of_the_wrong_kind_gets_past_the_checks() {
    let mut tried = 0;
    for (number, line) in REFERENCE.lines().enumerate() {
        let Some((key, _)) = line.trim_start_matches('#').split_once(" = ") else { continue };
        for value in
            ["1", "-1", "1.5", "nan", "true", "\"x\"", "\"\"", "[]", "[1]", "{}", "{ x = 1 }", "2026-11-20"]
        {
            let mut lines: Vec<String> = REFERENCE.lines().map(str::to_owned).collect();
            lines[number] = format!("{key} = {value}");
            if let Err(problems) = compile(&lines.join("\n"), &origin()) {
                let fallback = problems.iter().find(|problem| problem.code == "internal");
                assert!(fallback.is_none(), "{key} = {value}: {problems}");
            }
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}
