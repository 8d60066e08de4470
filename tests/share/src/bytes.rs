//! What goes over the wire: written and read again, and whatever else may arrive.

use fastrand::Rng;

use crate::planner::{MOST_AGENTS, Planner};
use crate::quota::Quota;
use crate::report::Report;
use crate::table::{Position, Row, Table};

fn quota(rng: &mut Rng) -> Quota {
    Quota { rate: rng.u64(..), burst: rng.u32(..) }
}

fn position(rng: &mut Rng) -> Position {
    Position { sequence: rng.u64(..), id: rng.u128(..) }
}

fn table(rng: &mut Rng) -> Table {
    let row = |rng: &mut Rng| Row { label: rng.u64(..), nonce: rng.u64(..), quota: quota(rng) };
    let rows = (0..rng.usize(0..20)).map(|_| row(rng)).collect();
    Table { id: rng.u128(..), prev: position(rng), limit: quota(rng), rows }
}

fn report(rng: &mut Rng) -> Report {
    Report {
        label: rng.u64(..),
        nonce: rng.u64(..),
        want: rng.u64(..),
        largest: rng.u32(..),
        spent: rng.u64(..),
        limit: quota(rng),
        applied: position(rng),
        leaves: rng.bool(),
    }
}

#[test]
fn what_is_written_is_read() {
    for seed in 0..1_000 {
        let mut rng = Rng::with_seed(seed);
        let (table, report) = (table(&mut rng), report(&mut rng));
        let mut tail = vec![0; rng.usize(0..50)];
        rng.fill(&mut tail);
        // What a later version adds is no matter.
        let with_tail = |bytes: Vec<u8>| [bytes, tail.clone()].concat();
        assert_eq!(Table::decode(&table.encode()).as_ref(), Some(&table), "seed {seed}");
        assert_eq!(Table::decode(&with_tail(table.encode())), Some(table), "seed {seed}");
        assert_eq!(Report::decode(&report.encode()), Some(report), "seed {seed}");
        assert_eq!(Report::decode(&with_tail(report.encode())), Some(report), "seed {seed}");
    }
}

#[test]
fn what_is_cut_short_is_not_read() {
    let mut rng = Rng::with_seed(1);
    let (table, report) = (table(&mut rng).encode(), report(&mut rng).encode());
    assert!((0..table.len()).all(|length| Table::decode(&table[..length]).is_none()));
    assert!((0..report.len()).all(|length| Report::decode(&report[..length]).is_none()));
}

#[test]
fn another_version_is_not_read() {
    let mut rng = Rng::with_seed(1);
    let (mut table, mut report) = (table(&mut rng).encode(), report(&mut rng).encode());
    (table[0], report[0]) = (2, 2);
    assert_eq!((Table::decode(&table), Report::decode(&report)), (None, None));
}

/// Neither panics, and the number of rows that is told takes no memory.
#[test]
fn any_bytes_are_safe() {
    for seed in 0..20_000 {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = match rng.u32(0..3) {
            0 => vec![1; rng.usize(0..300)],
            1 => table(&mut rng).encode(),
            _ => report(&mut rng).encode(),
        };
        for _ in 0..rng.usize(0..20).min(bytes.len()) {
            let at = rng.usize(0..bytes.len());
            bytes[at] = rng.u8(..);
        }
        let _ = Report::decode(&bytes);
        if let Some(table) = Table::decode(&bytes) {
            assert!(table.rows.capacity() <= bytes.len() / 8, "seed {seed}");
            let _ = table.is_sound();
        }
    }
    let mut header = Table { rows: Vec::new(), ..table(&mut Rng::with_seed(1)) }.encode();
    header.truncate(53);
    header.extend(u32::MAX.to_le_bytes());
    assert_eq!(Table::decode(&header), None);
}

#[test]
fn rows_within_the_limit_are_sound() {
    let limit = Quota { rate: 10, burst: 10 };
    let is_sound = |shares: &[(u64, u32)], limit| {
        let row = |share: &(u64, u32)| Row {
            label: 0,
            nonce: 0,
            quota: Quota { rate: share.0, burst: share.1 },
        };
        let rows = shares.iter().map(row).collect();
        Table { id: 0, prev: Position::default(), limit, rows }.is_sound()
    };
    assert!(is_sound(&[], Quota::ZERO));
    assert!(is_sound(&[(4, 5), (6, 5)], limit));
    assert!(!is_sound(&[(4, 5), (7, 5)], limit));
    assert!(!is_sound(&[(4, 5), (6, 6)], limit));
    // The sum does not wrap.
    let most = Quota { rate: u64::MAX, burst: u32::MAX };
    assert!(is_sound(&[(u64::MAX, u32::MAX)], most));
    assert!(!is_sound(&[(u64::MAX, 0), (1, 0)], most));
    assert!(!is_sound(&[(0, u32::MAX), (0, 1)], most));
}

/// A table of all of them would be more than a log takes: it would never be read, and they would never be forgotten.
#[test]
fn a_flood_of_reports_makes_no_table_without_end() {
    let mut rng = Rng::with_seed(1);
    let mut planner = Planner::new(100);
    for _ in 0..5 * MOST_AGENTS {
        planner.hear(report(&mut rng));
    }
    let own = Report { leaves: false, ..report(&mut rng) };
    let table = planner.plan(None, Position::default(), own, true, 1, 0);
    assert!(table.rows.len() <= MOST_AGENTS + 1, "{}", table.rows.len());
    assert!(
        table.rows.iter().any(|row| row.label == own.label),
        "there is always room for its own"
    );
    assert!(table.encode().len() < 512 << 10);
}
