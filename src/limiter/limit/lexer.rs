//! The lexer of limits' text: words, numbers and signs, and the error that points at one of them.

use std::error::Error;
use std::fmt;

/// An error quotes at most this many characters of a text.
const MAX_QUOTED: usize = 200;

/// A text does not parse as a [`Limit`](crate::Limit): where, what was found and what was expected.
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
    /// Where the error is, in bytes from the start of the text.
    #[must_use]
    pub fn position(&self) -> usize {
        self.start
    }

    /// The word, number or sign at that position. Empty at the end of the text.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.text[self.start..self.end]
    }

    /// What would be valid at that position: a list, in words.
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
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => write!(f, "{:?}...", &text[..end]),
        None => write!(f, "{text:?}"),
    }
}

impl Error for ParseLimitError {}

pub(super) type Parsed<T> = Result<T, ParseLimitError>;

/// A position in the text, always past white space. It collects what was tried in vain at that
/// position, so that an error lists every valid alternative.
pub(super) struct Lexer<'a> {
    text: &'a str,
    position: usize,
    expected: String,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let position = text.len() - text.trim_start().len();
        Self { text, position, expected: String::new() }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Consumes `words` if they come next, with a hyphen between them or not; the empty string is the end
    /// of the text.
    pub(super) fn accept(&mut self, words: &str) -> bool {
        let is_next = self.accept_silently(words);
        match words {
            _ if is_next => {}
            "" => self.note_expected("the end"),
            _ => self.note_expected(&format!("{words:?}")),
        }
        is_next
    }

    /// [`accept`](Self::accept) for one of several words that the caller notes as one.
    pub(super) fn accept_silently(&mut self, words: &str) -> bool {
        let mut rest = self.rest();
        for (index, word) in words.split(' ').enumerate() {
            if index > 0 {
                rest = rest.strip_prefix('-').unwrap_or(rest).trim_start();
            }
            let found = token(rest);
            if !found.eq_ignore_ascii_case(word) {
                return false;
            }
            rest = rest[found.len()..].trim_start();
        }
        self.advance(self.rest().len() - rest.len());
        true
    }

    /// [`accept`](Self::accept) where only `word` is valid.
    pub(super) fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.accept(word) { Ok(()) } else { Err(self.error()) }
    }

    /// A whole number, saturated: `u128::MAX` is out of range for every use.
    pub(super) fn number(&mut self) -> Option<u128> {
        let number = &self.rest()[..digits(self.rest())];
        if number.is_empty() {
            self.note_expected("a number");
            return None;
        }
        self.advance(number.len());
        let digits =
            number.bytes().filter(u8::is_ascii_digit).map(|digit| u128::from(digit - b'0'));
        Some(digits.fold(0, |sum: u128, digit| sum.saturating_mul(10).saturating_add(digit)))
    }

    /// A number, possibly with a fraction.
    pub(super) fn factor(&mut self) -> Parsed<f64> {
        let (start, rest) = (self.position, self.rest());
        let whole = digits(rest);
        let fraction = rest[whole..].strip_prefix('.').map_or(0, digits);
        let length = if fraction > 0 { whole + 1 + fraction } else { whole };
        let factor = rest[..length].replace('_', "").parse::<f64>();
        let Some(factor) = factor.ok().filter(|_| whole > 0) else {
            self.note_expected("a factor");
            return Err(self.error());
        };
        self.advance(length);
        if factor.is_finite() { Ok(factor) } else { Err(self.too_large(start, "a smaller factor")) }
    }

    pub(super) fn note_expected(&mut self, what: &str) {
        if !self.expected.is_empty() {
            self.expected.push_str(", ");
        }
        self.expected.push_str(what);
    }

    /// The error that the next token is none of those expected.
    pub(super) fn error(&self) -> ParseLimitError {
        self.error_at(self.position, token(self.rest()).len(), &self.expected)
    }

    /// The error that the value from `start` to here is too large.
    pub(super) fn too_large(&self, start: usize, expected: &str) -> ParseLimitError {
        self.error_at(start, self.text[start..self.position].trim_end().len(), expected)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    /// Skips `length` bytes and the white space after them.
    fn advance(&mut self, length: usize) {
        self.position = self.text.len() - self.rest()[length..].trim_start().len();
        self.expected.clear();
    }

    fn error_at(&self, start: usize, length: usize, expected: &str) -> ParseLimitError {
        let (text, expected) = (self.text.to_owned(), expected.to_owned());
        ParseLimitError { text, start, end: start + length, expected }
    }
}

/// The leading word, digits or sign.
fn token(text: &str) -> &str {
    let run = |belongs: fn(char) -> bool| text.find(|c| !belongs(c)).unwrap_or(text.len());
    let length = match text.chars().next() {
        None => 0,
        Some(c) if c.is_alphabetic() => run(char::is_alphabetic),
        Some(c) if c.is_ascii_digit() => digits(text),
        Some(c) => c.len_utf8(),
    };
    &text[..length]
}

/// Length of the leading digits and underscores, in bytes. The first must be a digit.
fn digits(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len())
}
