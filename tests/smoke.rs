use std::time::Duration;
use tollgate::*;
#[test]
fn spec_lines() {
    let time = ManualClock::new();
    let l = MemoryLimiter::with_clock(time.clone());
    l.set_capacity("a", 5, Duration::from_secs(1)).unwrap();
    assert_eq!(l.capacity("a").unwrap().to_string(), "a: 5/5 available, 0 in-flight, window=1s");
    for _ in 0..5 {
        l.try_acquire("a").unwrap().forget();
    }
    let e = l.try_acquire("a").unwrap_err();
    assert_eq!(e.retry_after(), Some(Duration::from_millis(200)));
    assert_eq!(l.capacity("a").unwrap().to_string(), "a: 0/5 available, 5 in-flight, window=1s");
    for _ in 0..3 {
        l.release("a");
    }
    assert_eq!(l.capacity("a").unwrap().to_string(), "a: 3/5 available, 2 in-flight, window=1s");
    l.set_capacity("x", 3, Duration::from_secs(1)).unwrap();
    l.announce_reduced("x", "429");
    assert_eq!(l.capacity("x").unwrap().to_string(), "x: 2/2 available, 0 in-flight, window=1s");
    l.configure("one", Limit::per_second(1)).unwrap();
    assert!(l.check("one").is_ok());
    for _ in 0..1_000_000 {
        time.advance(Duration::from_secs(1));
        assert!(l.check("one").is_ok());
        assert!(l.check("one").is_err());
    }
    let now = time.now();
    l.configure("seven", Limit::per_second(7)).unwrap();
    for _ in 0..7 {
        assert!(l.check("seven").is_ok());
    }
    let mut got = 0u64;
    while got < 1_000_000 {
        let e = l.check("seven");
        match e {
            Ok(()) => {
                got += 1;
                let t = time.now() - now;
                assert_eq!(t, (got * 1_000_000_000).div_ceil(7), "{got}");
            }
            Err(e) => time.advance(e.retry_after().unwrap()),
        }
    }
}
#[tokio::test]
async fn waits() {
    let l = MemoryLimiter::new();
    l.configure("w", Limit::per_second(1000).burst(10)).unwrap();
    let t = std::time::Instant::now();
    for _ in 0..110 {
        l.acquire("w").await.unwrap();
    }
    eprintln!("{:?}", t.elapsed());
    l.configure("v", Limit::per_second(1000).burst(1)).unwrap();
    let t = std::time::Instant::now();
    for _ in 0..110 {
        l.acquire("v").await.unwrap();
    }
    eprintln!("burst 1: {:?}", t.elapsed());
    let h: Vec<_> = (0..64)
        .map(|_| {
            let l = l.clone();
            std::thread::spawn(move || {
                l.blocking_acquire("w").unwrap();
            })
        })
        .collect();
    for h in h {
        h.join().unwrap();
    }
}
