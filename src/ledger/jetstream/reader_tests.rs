use super::*;

fn advance(position: &mut Position, delivered: u64, sequence: u64, previous: Option<u64>) -> Step {
    position.advance(Place { sequence, delivered }, previous)
}

/// A consumer that has delivered the entries 3 and 7.
fn at_7() -> Position {
    let mut position = Position::default();
    assert_eq!(advance(&mut position, 1, 3, None), Step::Next);
    assert_eq!(advance(&mut position, 2, 7, Some(3)), Step::Next);
    position
}

#[test]
fn an_entry_that_names_the_one_before_it_is_the_next() {
    let mut position = at_7();
    assert_eq!(advance(&mut position, 3, 8, Some(7)), Step::Next);
    assert_eq!(advance(&mut position, 4, 90, Some(8)), Step::Next);
}

#[test]
fn an_entry_that_names_another_or_none_comes_after_a_gap() {
    for previous in [None, Some(0), Some(3), Some(6), Some(8), Some(11)] {
        let mut position = at_7();
        assert_eq!(advance(&mut position, 3, 12, previous), Step::Gap);
        // And on from there.
        assert_eq!(advance(&mut position, 4, 13, Some(12)), Step::Next);
    }
}

#[test]
fn a_message_that_is_missing_repeated_reordered_or_of_a_new_consumer_is_in_doubt() {
    for (delivered, sequence) in [(4, 8), (2, 7), (1, 3), (1, 8), (3, 7), (3, 5)] {
        let mut position = at_7();
        assert_eq!(advance(&mut position, delivered, sequence, Some(7)), Step::Doubt);
        assert_eq!((position.delivered, position.last), (2, Some(7)));
    }
}

#[test]
fn the_place_is_read_from_both_forms_of_the_subject() {
    for reply in [
        "$JS.ACK.stream.consumer.1.17.5.1700000000000000000.0",
        "$JS.ACK._.hash.stream.consumer.1.17.5.1700000000000000000.0",
        "$JS.ACK.hub.hash.stream.consumer.1.17.5.1700000000000000000.0.token.more",
    ] {
        let place = place(reply).unwrap();
        assert_eq!((place.sequence, place.delivered), (17, 5));
    }
    for reply in ["", "$JS.ACK.", "$JS.ACK.a.b", "$JS.FC.a.b.1.2.3.4.5", "$JS.ACK.s.c.1.x.5.0.0"] {
        assert!(place(reply).is_none(), "{reply}");
    }
}
