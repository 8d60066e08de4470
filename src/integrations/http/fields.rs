//! The structured fields (RFC 9651) of the IETF's drafts: `RateLimit` and `RateLimit-Policy` as lists since
//! draft 8, and `RateLimit` as a dictionary in draft 7.

use std::convert::Infallible;
use std::time::Duration;

use http::HeaderValue;
use http::header::GetAll;
use sfv::visitor::{
    DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ListVisitor,
    ParameterVisitor,
};
use sfv::{BareItemFromInput, KeyRef, Parser};

/// More members than any upstream has policies. A bound on memory.
pub(super) const MOST: usize = 16;
/// In bytes; what has a longer name is ignored.
pub(super) const LONGEST_NAME: usize = 64;
/// In bytes; a longer line is ignored. The parser copies strings with escapes, up to three times.
const LONGEST_LINE: usize = 4_096;

/// A number that is not negative, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(u64);

impl Number {
    fn of(item: &BareItemFromInput<'_>) -> Option<Self> {
        let thousandths = match item {
            BareItemFromInput::Integer(n) => i64::from(*n).checked_mul(1_000)?,
            BareItemFromInput::Decimal(n) => i64::from(n.as_integer_scaled_1000()),
            _ => return None,
        };
        u64::try_from(thousandths).ok().map(Self)
    }

    pub(super) fn count(self) -> u64 {
        self.0 / 1_000
    }

    pub(super) fn seconds(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// A member of a list or of a dictionary.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// The item, or the key in a dictionary, or the parameter `name`.
    pub(super) name: String,
    /// The item, where it is a number.
    pub(super) number: Option<Number>,
    /// `q`, of a policy: tokens a window.
    pub(super) quota: Option<Number>,
    /// `w`: a policy's window; in `RateLimit` what an open change of the draft calls `t`.
    pub(super) window: Option<Number>,
    /// `r`, or `a` in that change: tokens that are left.
    pub(super) remaining: Option<Number>,
    /// `t`: seconds until the window ends.
    pub(super) reset: Option<Number>,
    /// `qu`: whether it counts other things than requests.
    pub(super) is_of_others: bool,
    /// Whether it is of a dictionary.
    pub(super) is_entry: bool,
}

impl Member {
    /// A name that is too long stays out, so that memory is bounded.
    fn rename(&mut self, name: &str) {
        if name.len() <= LONGEST_NAME {
            name.clone_into(&mut self.name);
        }
    }
}

/// The members of all lines.
pub(super) fn members(lines: GetAll<'_, HeaderValue>) -> Vec<Member> {
    lines.into_iter().flat_map(line).take(MOST).collect()
}

/// The members of a line as a list, or else as a dictionary. A malformed line has none, nor has one that is
/// too long.
pub(super) fn line(line: &HeaderValue) -> Vec<Member> {
    if line.len() > LONGEST_LINE {
        return Vec::new();
    }
    let list = Parser::new(line).parse_list_with_visitor(Members::default());
    list.or_else(|_| Parser::new(line).parse_dictionary_with_visitor(Members::default()))
        .unwrap_or_default()
}

#[derive(Default)]
struct Members(Vec<Member>);

impl Members {
    /// `None` if there are too many: the parser passes over it.
    fn add(&mut self, member: Member) -> Option<MemberVisitor<'_>> {
        if self.0.len() >= MOST {
            return None;
        }
        self.0.push(member);
        self.0.last_mut().map(MemberVisitor)
    }
}

impl<'de> ListVisitor<'de> for Members {
    type Out = Vec<Member>;
    type Error = Infallible;

    fn entry(&mut self) -> Result<impl EntryVisitor<'de>, Infallible> {
        Ok(self.add(Member::default()))
    }

    fn finish(self) -> Result<Vec<Member>, Infallible> {
        Ok(self.0)
    }
}

impl<'de> DictionaryVisitor<'de> for Members {
    type Out = Vec<Member>;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        let mut member = Member { is_entry: true, ..Member::default() };
        member.rename(key.as_str());
        Ok(self.add(member))
    }

    fn finish(self) -> Result<Vec<Member>, Infallible> {
        Ok(self.0)
    }
}

struct MemberVisitor<'a>(&'a mut Member);

impl<'de> EntryVisitor<'de> for MemberVisitor<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        Ok(Ignored)
    }
}

impl<'de> ItemVisitor<'de> for MemberVisitor<'_> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        match &item {
            BareItemFromInput::String(name) => self.0.rename(name.as_str()),
            BareItemFromInput::Token(name) => self.0.rename(name.as_str()),
            item => self.0.number = Number::of(item),
        }
        Ok(self)
    }
}

impl<'de> ParameterVisitor<'de> for MemberVisitor<'_> {
    type Out = ();
    type Error = Infallible;

    fn parameter(
        &mut self,
        key: &'de KeyRef,
        value: BareItemFromInput<'de>,
    ) -> Result<(), Infallible> {
        let number = Number::of(&value);
        match (key.as_str(), &value) {
            ("q", _) => self.0.quota = number,
            ("w", _) => self.0.window = number,
            ("r" | "a", _) => self.0.remaining = number,
            ("t", _) => self.0.reset = number,
            ("qu", BareItemFromInput::String(unit)) => {
                self.0.is_of_others = unit.as_str() != "requests";
            }
            ("name", BareItemFromInput::String(name)) => self.0.rename(name.as_str()),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}
