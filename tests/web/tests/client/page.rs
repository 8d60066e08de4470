//! The page shows the code that is tested here: doctests of the library have no reqwest.

const PAGE: &str = include_str!("../../../../docs/tower-client.md");

/// The lines of the module `snippet`, without their indentation, and with `pub(crate)` left out.
fn snippet(source: &str) -> String {
    let (_, rest) = source.split_once("mod snippet {\n").expect("a module of this name");
    let (code, _) = rest.split_once("\n}\n").expect("its end");
    let lines = code.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n").replace("pub(crate) ", "")
}

#[test]
fn the_page_shows_what_is_tested() {
    for source in [include_str!("reqwest.rs"), include_str!("middleware.rs")] {
        let code = snippet(source);
        assert!(PAGE.contains(&code), "docs/tower-client.md lacks:\n{code}");
    }
}

/// Its code that needs axum, or is a part of a program. The pages' programs are compiled as doctests.
#[test]
fn the_readme_shows_lines_of_the_pages() {
    let pages = [PAGE, include_str!("../../../../docs/axum.md")];
    let blocks = include_str!("../../../../README.md").split("```rust,ignore\n").skip(1);
    let lines: Vec<_> = blocks
        .flat_map(|rest| rest.lines().take_while(|line| *line != "```"))
        .map(str::trim)
        .collect();
    assert!(lines.len() > 8, "a server and a client");
    for line in lines {
        let is_line = |page: &&str| page.lines().any(|other| other.trim() == line);
        assert!(pages.iter().any(is_line), "no page has: {line}");
    }
}
