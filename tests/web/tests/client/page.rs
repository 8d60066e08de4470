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
