//! The feature `http`: what is read of answers, what is applied, and what a server writes.

#[path = "../common/mod.rs"]
mod common;

mod apply;
mod arbitrary;
mod server;
mod table;
mod together;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers from lines, with several lines of a name kept apart.
fn headers<'a>(lines: impl IntoIterator<Item = &'a str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a name and a value");
        let name: HeaderName = name.parse().expect("a header's name");
        headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    headers
}
