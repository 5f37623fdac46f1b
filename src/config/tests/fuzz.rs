//! Bytes that may be no text at all: a plan, or problems whose every place lies inside the file.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::fuzz::{damaged, tries};

const WORDS: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[",
    b"]]",
    b"{",
    b"}",
    b"=",
    b" = ",
    b"\"",
    b"\"\"\"",
    b"'",
    b"'''",
    b"#",
    b",",
    b".",
    b"\n",
    b"\r\n",
    b"\r",
    b"\t",
    b"\\",
    b"\\u00e9",
    b"\\UFFFFFFFF",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\0",
    b"0x1p4",
    b"-9223372036854775808",
    b"1e400",
    b"nan",
    b"2026-11-20T25:00:00Z",
    b"\"0s\"",
    b"\"99999999999h\"",
    b"[pool.app]\n",
    b"[[route]]\n",
    b"[listener.web.tls]\n",
    b"backends",
    b"policy",
    b"true",
];

/// The files that are shown to people, and each that the tests of problems know.
fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = Vec::new();
    for file in fs::read_dir(root.join("config")).unwrap() {
        seeds.push(fs::read(file.unwrap().path()).unwrap());
    }
    for file in fs::read_dir(root.join("src/config/tests/cases")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        seeds.extend(text.split("\n\n").map(|case| case.as_bytes().to_vec()));
    }
    assert!(seeds.len() > 50, "{}", seeds.len());
    seeds
}

proptest! {
    #![proptest_config(tries(500))]

    #[test]
    fn any_bytes_are_a_plan_or_problems_inside_the_file(bytes in damaged(seeds(), WORDS)) {
        let text = String::from_utf8_lossy(&bytes);
        let problems = match compile(&text, &origin()) {
            Ok(compiled) => compiled.warnings,
            Err(problems) => {
                prop_assert!(problems.errors() > 0);
                problems
            }
        };
        let lines: Vec<usize> = text.split('\n').map(|line| line.chars().count()).collect();
        for problem in &problems {
            let related = problem.related.iter().map(|related| (related.line, related.column));
            for (line, column) in related.chain([(problem.line, problem.column)]) {
                prop_assert!((1..=lines.len()).contains(&line), "{:?}", problem);
                prop_assert!((1..=lines[line - 1] + 1).contains(&column), "{:?}", problem);
            }
        }
        prop_assert_eq!(problems.render(false).is_empty(), problems.is_empty());
    }
}

/// What is no text is told so, with the line where it stops being one.
#[test]
fn a_file_of_any_bytes_is_read_or_refused_with_a_line() {
    let folder = std::env::temp_dir().join(format!("pintle-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("pintle.toml");
    for (bytes, line) in [(&b"\xff"[..], 1), (b"a = 1\nb = \"\xc3\"\n", 2), (b"\n\n\n\xed\xa0\x80", 4)] {
        fs::write(&path, bytes).unwrap();
        let problems = load(&path).unwrap_err().to_string();
        assert!(problems.contains(&format!("line {line} is not UTF-8")), "{problems}");
    }
    fs::remove_dir_all(&folder).unwrap();
}
