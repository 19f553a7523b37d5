use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

fn on_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_holder_that_takes_all_it_can_leaves_room_for_others() {
    let memory = FairShare::new(Rule::new(256).with_greed(2));
    let mut greedy = Vec::new();
    while let Ok(share) = memory.try_take(&"greedy", 1) {
        greedy.push(share);
    }
    assert_eq!(memory.held_by(&"greedy"), 170);
    let other = memory.try_take(&"other", 50).map(|share| share.amount());
    assert_eq!(other, Ok(50));
    drop(greedy);
    assert_eq!(memory.used(), 0);
}

#[test]
fn what_is_dropped_is_given_back_and_nothing_is_kept_of_its_holder() {
    let memory = FairShare::new(Rule::new(10));
    let mut share = memory.try_take(&1, 2).unwrap();
    share.grow_to(5).unwrap();
    assert_eq!(share.grow_to(6), Err(Shortage::OwnShare { held: 5 }));
    assert_eq!((share.amount(), memory.used()), (5, 5));
    share.shrink_to(1);
    assert_eq!((share.amount(), memory.held_by(&1)), (1, 1));
    drop(share);
    assert_eq!((memory.used(), memory.held_by(&1)), (0, 0));
}

#[test]
fn whoever_holds_least_is_served_first() {
    on_runtime(async {
        let permits = FairShare::new(Rule::new(4).with_floor(1));
        let greedy = [permits.try_take(&"a", 1).unwrap(), permits.try_take(&"a", 1).unwrap()];
        let others = [permits.try_take(&"b", 1).unwrap(), permits.try_take(&"c", 1).unwrap()];
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for holder in ["a", "a", "d"] {
            let (permits, order) = (permits.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let share = permits.take(&holder, 1, LONG).await.unwrap();
                order.lock().push(holder);
                drop(share);
            }));
            tokio::task::yield_now().await;
        }
        drop(others);
        drop(greedy);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), ["d", "a", "a"]);
        assert_eq!(permits.used(), 0);
    });
}

#[test]
fn who_gives_up_leaves_the_queue() {
    on_runtime(async {
        let permits = FairShare::new(Rule::new(2));
        let held = permits.try_take(&1, 1).unwrap();
        assert_eq!(permits.take(&1, 1, SHORT).await.map(|_| ()), Err(Shortage::TimedOut));
        assert_eq!(permits.take(&1, 2, SHORT).await.map(|_| ()), Err(Shortage::TooLarge { most: 1 }));
        let waiting = tokio::spawn({
            let permits = permits.clone();
            async move { permits.take(&1, 1, LONG).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!((permits.used(), permits.held_by(&1)), (0, 0));
    });
}

#[test]
fn only_so_many_wait() {
    on_runtime(async {
        let permits = FairShare::new(Rule::new(1).with_floor(1));
        let _held = permits.try_take(&1, 1).unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(permits.take(&1, 1, LONG))).collect();
        for one in &mut waiting {
            let now =
                std::future::poll_fn(|context| std::task::Poll::Ready(one.as_mut().poll(context))).await;
            assert!(now.is_pending());
        }
        assert_eq!(permits.take(&1, 1, LONG).await.map(drop), Err(Shortage::TooManyWaiting));
        // Another holder may wait all the same.
        assert_eq!(permits.take(&2, 1, SHORT).await.map(drop), Err(Shortage::TimedOut));
    });
}

#[derive(Debug, Clone)]
enum Step {
    Take(u8, u64),
    Grow(usize, u64),
    Shrink(usize, u64),
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..5u8, 0..40u64).prop_map(|(holder, amount)| Step::Take(holder, amount)),
        (any::<usize>(), 0..60u64).prop_map(|(place, amount)| Step::Grow(place, amount)),
        (any::<usize>(), 0..60u64).prop_map(|(place, amount)| Step::Shrink(place, amount)),
        any::<usize>().prop_map(Step::Drop),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn nobody_gets_more_than_a_share_and_room_is_always_left(
        steps in steps(),
        capacity in 1..120u64,
        greed in 1..5u64,
        floor in 0..4u64,
    ) {
        let rule = Rule::new(capacity).with_greed(greed).with_floor(floor);
        let all = FairShare::new(rule);
        let mut shares: Vec<Share<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Take(holder, amount) => shares.extend(all.try_take(&holder, amount).ok()),
                Step::Grow(place, amount) if !shares.is_empty() => {
                    let place = place % shares.len();
                    let _ = shares[place].grow_to(amount);
                }
                Step::Shrink(place, amount) if !shares.is_empty() => {
                    let place = place % shares.len();
                    shares[place].shrink_to(amount);
                }
                Step::Drop(place) if !shares.is_empty() => drop(shares.swap_remove(place % shares.len())),
                _ => {}
            }
            let held: u64 = (0..5).map(|holder| all.held_by(&holder)).sum();
            prop_assert_eq!(held, all.used());
            prop_assert_eq!(held, shares.iter().map(Share::amount).sum::<u64>());
            prop_assert!(held <= capacity);
            for holder in 0..5 {
                prop_assert!(all.held_by(&holder) <= rule.most());
            }
            let free = capacity - held;
            if floor == 0 {
                // Whoever takes leaves something.
                prop_assert!(free > 0);
            }
            if free >= 2 || floor > 0 && free >= 1 {
                prop_assert!(all.try_take(&99, 1).is_ok(), "a newcomer gets nothing of {free} free");
            }
        }
        drop(shares);
        prop_assert_eq!(all.used(), 0);
        prop_assert!(all.try_take(&0, rule.most()).is_ok());
    }

    #[test]
    fn everyone_who_waits_is_served(holders in proptest::collection::vec(0..6u8, 1..60), capacity in 1..8u64) {
        on_runtime(async {
            let permits = FairShare::new(Rule::new(capacity).with_floor(1));
            let tasks: Vec<_> = holders
                .iter()
                .map(|holder| {
                    let (permits, holder) = (permits.clone(), *holder);
                    tokio::spawn(async move {
                        let share = permits.take(&holder, 1, LONG).await.unwrap();
                        tokio::task::yield_now().await;
                        drop(share);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(permits.used(), 0);
        });
    }
}
