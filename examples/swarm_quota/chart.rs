//! The chart of a run: the rates of the agents, on top of each other, and the limit.

use std::fmt::Write as _;

use crate::args::Args;
use crate::crew::name;
use crate::run::Run;

/// Seconds of a point.
const STEP: f64 = 1.0;
const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 58.0;
const TOP: f64 = 78.0;
const WHOLE: (f64, f64) = (LEFT + WIDTH + 150.0, TOP + HEIGHT + 62.0);
const INK: &str = "#1f2328";
const FAINT: &str = "#59636e";
/// Of the agents, in turn.
const COLOURS: [&str; 10] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#332288", "#f0e442",
    "#882255", "#999999",
];
/// Agents that the legend has room for.
const NAMED: usize = 12;

/// An SVG picture on a white card, for pages of any colour.
#[allow(clippy::cast_precision_loss)] // places in a picture
pub(crate) fn draw(args: &Args, run: &Run, end: f64) -> String {
    let rates = run.rates(STEP, end);
    let points = rates.first().map_or(0, Vec::len);
    let sum = |point: usize| rates.iter().map(|rates| rates[point]).sum::<f64>();
    let limit = f64::from(args.limit);
    let most = (0..points).map(sum).fold(limit, f64::max) * 1.1;
    let across = |seconds: f64| LEFT + WIDTH * seconds / end;
    let up = |rate: f64| TOP + HEIGHT * (1.0 - rate / most);

    let mut svg = Svg::new(&title(args, run));
    let tick = nice(most / 5.0);
    for rate in (0..).map(|i| f64::from(i) * tick).take_while(|rate| *rate <= most) {
        svg.line((LEFT, up(rate)), (LEFT + WIDTH, up(rate)), "#e3e6ea", "");
        svg.text((LEFT - 6.0, up(rate) + 4.0), FAINT, "end", &rate.to_string());
    }
    let tick = nice(end / 8.0);
    for seconds in (0..).map(|i| f64::from(i) * tick).take_while(|seconds| *seconds <= end) {
        svg.text((across(seconds), TOP + HEIGHT + 16.0), FAINT, "middle", &format!("{seconds} s"));
    }

    // Each agent's area lies on those of the agents before it.
    let mut base = vec![0.0; points];
    for (agent, rates) in rates.iter().enumerate() {
        let top: Vec<f64> = std::iter::zip(&base, rates).map(|(base, rate)| base + rate).collect();
        let at = |(point, rate): (usize, &f64)| (across((point as f64 + 0.5) * STEP), up(*rate));
        let outline: Vec<_> =
            top.iter().enumerate().map(at).chain(base.iter().enumerate().rev().map(at)).collect();
        svg.area(&outline, COLOURS[agent % COLOURS.len()]);
        base = top;
    }
    svg.line((LEFT, up(limit)), (LEFT + WIDTH, up(limit)), INK, r#" stroke-dasharray="5 4""#);

    let mut row = 0.0;
    for (seconds, agent, verb) in run.marks.iter().filter(|(_, _, verb)| *verb != "starts") {
        let x = across(*seconds);
        svg.line((x, TOP - row - 8.0), (x, TOP + HEIGHT), INK, "");
        svg.text((x + 4.0, TOP - row - 4.0), INK, "start", &format!("{} {verb}", name(*agent)));
        row = if row == 0.0 { 13.0 } else { 0.0 };
    }
    svg.text((LEFT + WIDTH + 30.0, up(limit) + 4.0), INK, "start", &format!("limit {limit}/s"));
    svg.line(
        (LEFT + WIDTH + 8.0, up(limit)),
        (LEFT + WIDTH + 26.0, up(limit)),
        INK,
        r#" stroke-dasharray="5 4""#,
    );
    // In the order of the areas, from the top.
    for agent in (0..rates.len().min(NAMED)).rev() {
        let y = up(limit) + 22.0 + 17.0 * (rates.len().min(NAMED) - 1 - agent) as f64;
        svg.rect((LEFT + WIDTH + 12.0, y - 8.0), COLOURS[agent % COLOURS.len()]);
        svg.text((LEFT + WIDTH + 30.0, y), INK, "start", &name(agent));
    }
    let begin = 2.0 * args.term.as_secs_f64();
    let tally = run.tally(begin, end);
    let used = 100.0 * f64::from(tally.admitted) / (limit * (end - begin));
    let figures = format!(
        "From {begin} s on: {} admitted, {used:.1} % of the limit; {} x 429.",
        tally.admitted, tally.refused
    );
    svg.text((22.0, TOP + HEIGHT + 40.0), FAINT, "start", &figures);
    let what =
        "Requests that were admitted, in each second. The agents' rates lie on top of each other.";
    svg.text((22.0, TOP + HEIGHT + 54.0), FAINT, "start", what);
    svg.text((LEFT, 52.0), FAINT, "start", "requests a second");
    svg.end()
}

fn title(args: &Args, run: &Run) -> String {
    let many = run.agents.len();
    let how = if args.is_shared { "share" } else { "each take" };
    format!("{many} processes {how} a limit of {} requests a second", args.limit)
}

/// The next of 1, 2, 5, 10 and so on.
fn nice(least: f64) -> f64 {
    let ten = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * ten)
        .into_iter()
        .find(|tick| *tick >= least)
        .unwrap_or(ten)
}

struct Svg(String);

impl Svg {
    fn new(title: &str) -> Self {
        let (width, height) = WHOLE;
        Self(format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="11">
<title>{title}</title>
<rect x="0.5" y="0.5" width="{}" height="{}" rx="8" fill="#ffffff" stroke="#d1d9e0"/>
<text x="22" y="27" font-size="16" font-weight="600" fill="{INK}">{title}</text>
"##,
            width - 1.0,
            height - 1.0
        ))
    }

    fn text(&mut self, (x, y): (f64, f64), colour: &str, anchor: &str, words: &str) {
        let _ = writeln!(
            self.0,
            r#"<text x="{x:.1}" y="{y:.1}" fill="{colour}" text-anchor="{anchor}">{words}</text>"#
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
        let _ = writeln!(
            self.0,
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}"{more}/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    fn rect(&mut self, (x, y): (f64, f64), colour: &str) {
        let _ = writeln!(
            self.0,
            r#"<rect x="{x:.1}" y="{y:.1}" width="12" height="9" fill="{colour}"/>"#
        );
    }

    fn area(&mut self, outline: &[(f64, f64)], colour: &str) {
        let points: Vec<_> = outline.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.0, r#"<polygon points="{}" fill="{colour}"/>"#, points.join(" "));
    }

    fn end(self) -> String {
        self.0 + "</svg>\n"
    }
}
