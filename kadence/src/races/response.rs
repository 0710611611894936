//! The response channel between a sender and a reader on two threads.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use shuttle::{future::block_on, thread};

use super::check;
use crate::response::{Response, ResponseReceiver, response_channel};

fn next<T, E>(receiver: &mut ResponseReceiver<T, E>) -> Response<T, E> {
    block_on(poll_fn(|cx| receiver.poll_next(cx)))
}

#[test]
fn a_reader_gets_every_item_or_its_place_in_a_gap_and_then_the_end() {
    check(|| {
        const ITEMS: u64 = 4;
        let (sender, mut receiver) = response_channel::<u64, &str>(2);
        let sending = thread::spawn(move || {
            (0..ITEMS).for_each(|item| sender.push(item));
            sender.end("end");
        });
        let mut read = 0;
        loop {
            match next(&mut receiver) {
                Response::Item(item) => {
                    assert_eq!(item, read, "an item is out of its place");
                    read += 1;
                }
                Response::Lagged(skipped) => {
                    assert!(skipped > 0, "an empty gap");
                    read += skipped;
                }
                Response::End(end) => {
                    assert_eq!(end, "end");
                    break;
                }
                Response::Disconnected => panic!("the end is lost"),
            }
        }
        assert_eq!(read, ITEMS);
        sending.join().unwrap();
    });
}

#[test]
fn a_reader_learns_that_its_sender_is_gone() {
    check(|| {
        let (sender, mut receiver) = response_channel::<u64, ()>(1);
        let sending = thread::spawn(move || {
            sender.push(7);
            drop(sender);
        });
        assert_eq!(next(&mut receiver), Response::Item(7));
        assert_eq!(next(&mut receiver), Response::Disconnected);
        sending.join().unwrap();
    });
}

#[test]
fn a_reader_that_leaves_keeps_nothing() {
    check(|| {
        let item = Arc::new(());
        let (sender, mut receiver) = response_channel::<Arc<()>, Arc<()>>(2);
        let sent = Arc::clone(&item);
        let sending = thread::spawn(move || {
            sender.push(Arc::clone(&sent));
            sender.push(Arc::clone(&sent));
            let closed = sender.is_closed();
            sender.push(Arc::clone(&sent));
            assert!(!closed || sender.is_closed(), "a channel was opened again");
            sender.end(sent);
        });
        // One poll, and then the reader loses its interest, however far the sender is.
        drop(receiver.poll_next(&mut Context::from_waker(Waker::noop())));
        drop(receiver);
        sending.join().unwrap();
        assert_eq!(Arc::strong_count(&item), 1, "an item is kept although nobody can read it");
    });
}

#[test]
fn a_reader_that_changes_its_task_is_woken_in_the_new_one() {
    struct Flag(AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }
    check(|| {
        let (sender, mut receiver) = response_channel::<u64, ()>(1);
        let sending = thread::spawn(move || sender.end(()));
        let new = Arc::new(Flag(AtomicBool::new(false)));
        let first = receiver.poll_next(&mut Context::from_waker(Waker::noop()));
        let second = receiver.poll_next(&mut Context::from_waker(&Waker::from(Arc::clone(&new))));
        sending.join().unwrap();
        let ended = !matches!((&first, &second), (Poll::Pending, Poll::Pending));
        assert!(ended || new.0.load(SeqCst), "the task of the last poll was not woken");
    });
}
