//! Words, numbers and signs of a text, and what an error says of them.

use std::error::Error;
use std::fmt;

/// Of a longer text an error shows no more characters.
const SHOWN: usize = 200;

/// Why a text is no limit: where, what was found there, and what was expected.
///
/// ```
/// # use tollgate::Limit;
/// let error = "10/s bust 20".parse::<Limit>().unwrap_err();
/// assert_eq!((error.position(), error.found()), (5, "bust"));
/// assert!(error.to_string().starts_with(r#"at byte 5 of "10/s bust 20": expected "burst", "and""#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseLimitError {
    text: String,
    start: usize,
    end: usize,
    expected: String,
}

impl ParseLimitError {
    /// Where the text is wrong, in bytes from its beginning.
    #[must_use]
    pub fn position(&self) -> usize {
        self.start
    }

    /// What is there: a word, a number or a sign. Empty if the text ends there.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.text[self.start..self.end]
    }

    /// What would be right there, as a list in words.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }
}

impl fmt::Display for ParseLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {} of ", self.start)?;
        quote(f, &self.text)?;
        write!(f, ": expected {}, found ", self.expected)?;
        if self.found().is_empty() { f.write_str("the end") } else { quote(f, self.found()) }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => write!(f, "{:?}...", &text[..end]),
        None => write!(f, "{text:?}"),
    }
}

impl Error for ParseLimitError {}

pub(super) type Parsed<T> = Result<T, ParseLimitError>;

/// Reads on from a position, past the white space, and knows what was looked for there in vain: so
/// an error lists all that could have been.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    expected: String,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let at = text.len() - text.trim_start().len();
        Self { text, at, expected: String::new() }
    }

    /// Where the next thing begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether these words are next, and passes them if they are. No word is the end.
    pub(super) fn accept(&mut self, words: &str) -> bool {
        let is_next = self.accept_quietly(words);
        match words {
            _ if is_next => {}
            "" => self.miss("the end"),
            _ => self.miss(&format!("{words:?}")),
        }
        is_next
    }

    /// The same, without a note: of what the caller notes as one.
    pub(super) fn accept_quietly(&mut self, words: &str) -> bool {
        let mut rest = self.rest();
        for word in words.split(' ') {
            let found = token(rest);
            if !found.eq_ignore_ascii_case(word) {
                return false;
            }
            rest = rest[found.len()..].trim_start();
        }
        self.pass(self.rest().len() - rest.len());
        true
    }

    /// The same, where nothing else may be.
    pub(super) fn need(&mut self, word: &str) -> Parsed<()> {
        if self.accept(word) { Ok(()) } else { Err(self.error()) }
    }

    /// A whole number. One that is out of range becomes the greatest, which is too great for all uses.
    pub(super) fn number(&mut self) -> Option<u128> {
        let number = &self.rest()[..digits(self.rest())];
        if number.is_empty() {
            self.miss("a number");
            return None;
        }
        self.pass(number.len());
        let digits =
            number.bytes().filter(u8::is_ascii_digit).map(|digit| u128::from(digit - b'0'));
        Some(digits.fold(0, |sum: u128, digit| sum.saturating_mul(10).saturating_add(digit)))
    }

    /// A number with or without a fraction.
    pub(super) fn factor(&mut self) -> Parsed<f64> {
        let (start, rest) = (self.at, self.rest());
        let whole = digits(rest);
        let fraction = rest[whole..].strip_prefix('.').map_or(0, digits);
        let length = if fraction > 0 { whole + 1 + fraction } else { whole };
        let factor = rest[..length].replace('_', "").parse::<f64>();
        let Some(factor) = factor.ok().filter(|_| whole > 0) else {
            self.miss("a factor");
            return Err(self.error());
        };
        self.pass(length);
        if factor.is_finite() { Ok(factor) } else { Err(self.too_much(start, "a smaller factor")) }
    }

    /// Notes that this was looked for in vain.
    pub(super) fn miss(&mut self, what: &str) {
        if !self.expected.is_empty() {
            self.expected.push_str(", ");
        }
        self.expected.push_str(what);
    }

    /// What is next is nothing that was looked for.
    pub(super) fn error(&self) -> ParseLimitError {
        self.error_at(self.at, token(self.rest()).len(), &self.expected)
    }

    /// What was just read, from `start` on, is more than can be said.
    pub(super) fn too_much(&self, start: usize, expected: &str) -> ParseLimitError {
        self.error_at(start, self.text[start..self.at].trim_end().len(), expected)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Goes on behind so many bytes, and the white space there.
    fn pass(&mut self, length: usize) {
        self.at = self.text.len() - self.rest()[length..].trim_start().len();
        self.expected.clear();
    }

    fn error_at(&self, start: usize, length: usize, expected: &str) -> ParseLimitError {
        let (text, expected) = (self.text.to_owned(), expected.to_owned());
        ParseLimitError { text, start, end: start + length, expected }
    }
}

/// The word, the digits or the sign that the text begins with.
fn token(text: &str) -> &str {
    let run = |is_it: fn(char) -> bool| text.find(|c| !is_it(c)).unwrap_or(text.len());
    let length = match text.chars().next() {
        None => 0,
        Some(c) if c.is_alphabetic() => run(char::is_alphabetic),
        Some(c) if c.is_ascii_digit() => digits(text),
        Some(c) => c.len_utf8(),
    };
    &text[..length]
}

/// How many bytes of digits the text begins with, the first being no underscore.
fn digits(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len())
}
