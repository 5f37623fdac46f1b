//! The room as a whole: files in, plans or problems out.

use super::*;

fn origin() -> Origin {
    Origin { name: "pintle.toml".to_owned(), base: std::env::temp_dir() }
}

#[test]
fn show() {
    for (n, t) in
        [("ref", REFERENCE), ("min", MINIMAL), ("nginx", include_str!("../../../config/from-nginx.toml"))]
    {
        match compile(t, &origin()) {
            Ok(c) => println!("{n} ok {}", c.warnings),
            Err(p) => println!("{n}\n{p}"),
        }
    }
    for t in std::env::var("SHOW").ok().iter().flat_map(|d| std::fs::read_dir(d).unwrap()) {
        let t = std::fs::read_to_string(t.unwrap().path()).unwrap();
        for t in t.split("\n=====\n") {
            match compile(t, &origin()) {
                Ok(c) => println!(
                    "ok {} {:?}",
                    c.warnings,
                    c.plan.routes.iter().map(|r| &r.name).collect::<Vec<_>>()
                ),
                Err(p) => println!("{p}\n"),
            }
            println!("-----------------------------------------------------");
        }
    }
}
