//! From headers to quotas.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::fields::{self, LONGEST_NAME, MOST, Member, Number};
use super::names::{self, Family, Figure, Name};
use super::types::{Profile, Quota, Scope, Unit};
use super::values::{self, MAX_WAIT};

/// What the headers say.
pub(super) struct Read {
    /// How long to wait.
    pub(super) told: Option<Duration>,
    pub(super) quotas: Vec<Quota>,
    pub(super) scope: Scope,
    pub(super) bucket: Option<String>,
    pub(super) cost: Option<u64>,
    pub(super) is_github: bool,
}

/// How long to wait, by the first of these that says so.
const WAITS: [(&str, Parse); 4] = [
    ("retry-after-ms", |text, _| values::millis(text)),
    ("x-ms-retry-after-ms", |text, _| values::millis(text)),
    ("retry-after", values::delay),
    ("x-ratelimit-retry-after", values::delay),
];

type Parse = fn(&str, Duration) -> Option<Duration>;

pub(super) fn read(profile: Profile, headers: &HeaderMap) -> Read {
    let date = values::date(headers.get(http::header::DATE).and_then(text));
    #[cfg(feature = "metrics")]
    super::ignored::count(profile, headers, date, &WAITS);
    let told = WAITS.into_iter().find_map(|(name, parse)| {
        let lines = headers.get_all(name).into_iter().filter_map(text);
        lines.filter_map(|text| parse(text, date)).max()
    });
    let mut reader = Reader {
        profile,
        date,
        quotas: Vec::new(),
        is_reset_after: false,
        read: Read {
            told,
            quotas: Vec::new(),
            scope: Scope::Resource,
            bucket: None,
            cost: None,
            is_github: profile == Profile::GitHub
                || profile == Profile::Auto
                    && ["x-github-request-id", "x-ratelimit-resource"]
                        .iter()
                        .any(|name| headers.contains_key(*name)),
        },
    };
    for (name, value) in headers {
        if let Some(name) = Name::parse(name.as_str())
            && name.family.is_in(profile)
        {
            reader.header(&name, value);
        }
    }
    if Family::Draft.is_in(profile) {
        reader.structured(headers);
    }
    let told_anything = |quota: &Quota| {
        quota.limit.is_some()
            || quota.remaining.is_some()
            || quota.reset.is_some_and(|reset| !reset.is_zero())
    };
    let quotas = reader.quotas.into_iter().map(|(_, quota)| quota).filter(told_anything).collect();
    Read { quotas, ..reader.read }
}

fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok().map(str::trim)
}

struct Reader {
    profile: Profile,
    date: Duration,
    quotas: Vec<(Family, Quota)>,
    is_reset_after: bool,
    read: Read,
}

impl Reader {
    /// The quota of this name, which is added if it is missing; `None` if there are too many.
    fn quota(&mut self, family: Family, name: &str) -> Option<&mut Quota> {
        let is_it = |(of, quota): &(Family, Quota)| *of == family && quota.name == name;
        let index = match self.quotas.iter().position(is_it) {
            Some(index) => index,
            None if self.quotas.len() < MOST && name.len() <= LONGEST_NAME => {
                // `OpenAI` and Anthropic tell when the quota is full again, dimension by dimension.
                let is_full_then = !name.is_empty() && family != Family::Draft
                    || matches!(
                        self.profile,
                        Profile::OpenAi | Profile::Azure | Profile::Anthropic
                    );
                let (unit, window) = match family {
                    Family::Draft => (Unit::Requests, None),
                    _ => names::dimension(name),
                };
                let name = name.to_string();
                let quota =
                    Quota { name, unit, window, ends_window: !is_full_then, ..Quota::default() };
                self.quotas.push((family, quota));
                self.quotas.len() - 1
            }
            None => return None,
        };
        self.quotas.get_mut(index).map(|(_, quota)| quota)
    }

    /// One line of a header. Of several lines the least that is left counts, and the last reset.
    fn header(&mut self, name: &Name<'_>, value: &HeaderValue) {
        let Some(text) = text(value) else { return };
        let (date, family) = (self.date, name.family);
        match name.figure {
            Figure::Limit => self.limit(name, text, value),
            Figure::Remaining => {
                if let Some(left) = values::count(text)
                    && let Some(quota) = self.quota(family, name.dimension)
                {
                    lower(&mut quota.remaining, left);
                }
            }
            Figure::Reset if !self.is_reset_after => {
                if let Some(reset) = values::delay(text, date)
                    && let Some(quota) = self.quota(family, name.dimension)
                {
                    quota.reset = quota.reset.max(Some(reset));
                }
            }
            Figure::ResetAfter => {
                if let Some(reset) = values::seconds(text)
                    && let Some(quota) = self.quota(family, "")
                {
                    quota.reset = Some(reset);
                    self.is_reset_after = true;
                }
            }
            Figure::Calls => {
                if let Some((used, size)) = text.split_once('/')
                    && let (Some(used), Some(size)) = (values::count(used), values::count(size))
                    && let Some(quota) = self.quota(family, "")
                {
                    quota.limit = Some(size);
                    lower(&mut quota.remaining, size.saturating_sub(used));
                }
            }
            Figure::Cost => self.read.cost = values::count(text),
            Figure::Bucket if text.len() <= LONGEST_NAME => {
                self.read.bucket = Some(text.to_string());
            }
            Figure::Global if text == "true" => self.read.scope = Scope::Global,
            Figure::Scope if text == "global" => self.read.scope = Scope::Global,
            Figure::Scope if text == "shared" => self.read.scope = Scope::Shared,
            Figure::Reset | Figure::Bucket | Figure::Global | Figure::Scope => {}
        }
    }

    /// A limit: a number, or the list of draft 3, `10, 10;w=1;name="per-ip", 1000;w=3600`, whose first number
    /// is the limit that the other headers are about and whose others are all policies.
    fn limit(&mut self, name: &Name<'_>, text: &str, value: &HeaderValue) {
        let family = name.family;
        if let Some(limit) = values::count(text) {
            if let Some(quota) = self.quota(family, name.dimension) {
                lower(&mut quota.limit, limit);
            }
            return;
        }
        let members = fields::line(value);
        let Some(limit) = members.iter().find_map(|member| member.number) else { return };
        if let Some(quota) = self.quota(family, name.dimension) {
            lower(&mut quota.limit, limit.count());
        }
        for member in members.iter().filter(|member| member.window.is_some()) {
            self.policy(family, member);
        }
    }

    /// `RateLimit` and `RateLimit-Policy`.
    fn structured(&mut self, headers: &HeaderMap) {
        for member in fields::members(headers.get_all("ratelimit")) {
            if member.is_entry {
                self.entry(&member);
            } else if let Some(left) = member.remaining
                && let Some(quota) = self.structured_quota(&member)
            {
                lower(&mut quota.remaining, left.count());
                let reset = member.reset.or(member.window).map(wait);
                quota.reset = quota.reset.max(reset);
            }
        }
        for member in fields::members(headers.get_all("ratelimit-policy")) {
            self.policy(Family::Draft, &member);
        }
    }

    /// A key of draft 7's dictionary.
    fn entry(&mut self, member: &Member) {
        let (Some(number), Some(quota)) = (member.number, self.quota(Family::Draft, "")) else {
            return;
        };
        match member.name.as_str() {
            "limit" => lower(&mut quota.limit, number.count()),
            "remaining" => lower(&mut quota.remaining, number.count()),
            "reset" => quota.reset = quota.reset.max(Some(wait(number))),
            _ => {}
        }
    }

    /// A policy: `"name";q=100;w=60`, or before draft 8 `100;w=60`, which tells the window of the limit of that
    /// size.
    fn policy(&mut self, family: Family, member: &Member) {
        let (limit, quota) = if let Some(limit) = member.number {
            let quota = self.quota(family, "");
            (limit, quota.filter(|quota| quota.limit.is_none_or(|known| known == limit.count())))
        } else if let Some(limit) = member.quota {
            (limit, self.structured_quota(member))
        } else {
            return;
        };
        if let Some(quota) = quota {
            lower(&mut quota.limit, limit.count());
            quota.window = quota.window.or(member.window.map(Number::seconds));
        }
    }

    fn structured_quota(&mut self, member: &Member) -> Option<&mut Quota> {
        let quota = self.quota(Family::Draft, &member.name)?;
        quota.unit = if member.is_of_others { Unit::Other } else { Unit::Requests };
        quota.ends_window = true;
        Some(quota)
    }
}

fn wait(number: Number) -> Duration {
    number.seconds().min(MAX_WAIT)
}

fn lower(known: &mut Option<u64>, more: u64) {
    *known = Some(known.map_or(more, |known| known.min(more)));
}
