//! Gets, many at a time, and what became of them.

use std::{
    fs,
    ops::Range,
    pin::pin,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, channel::mpsc, select};
use kadence_tests::{TestEnv, TestRuntime, bench::wait};

use crate::{
    client::{Answer, GetClient},
    network::{key, value},
};

/// Between two looks at whether kad is done.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What became of some gets.
#[derive(Debug, Clone, Default)]
pub(crate) struct GetResults {
    pub(crate) asked: usize,
    /// From the first get to the last answer, bursts added up. What was never answered adds nothing.
    pub(crate) wall: Duration,
    /// How long the right answers took.
    pub(crate) latencies: Vec<Duration>,
    /// Records that are said not to exist.
    pub(crate) not_found: usize,
    /// Gets that ended with any other error.
    pub(crate) failed: usize,
    /// The first of these errors.
    pub(crate) first_failure: Option<String>,
    /// Answers with other bytes than those that were stored.
    pub(crate) wrong: usize,
    /// Processor time of the whole process, servers and what came after the last answer included; where it is known.
    pub(crate) cpu: Option<Duration>,
    /// From the last answer until kad had no query any more.
    pub(crate) drain_time: Duration,
}

impl GetResults {
    /// Never answered within the deadline.
    pub(crate) fn lost(&self) -> usize {
        self.asked - self.latencies.len() - self.not_found - self.failed - self.wrong
    }

    /// Everything but the right answer.
    pub(crate) fn not_right(&self) -> usize {
        self.asked - self.latencies.len()
    }

    /// Right answers in a second.
    pub(crate) fn throughput(&self) -> f64 {
        self.latencies.len() as f64 / self.wall.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn count(&mut self, EndedGet { n, took, answer }: EndedGet) {
        match answer {
            Answer::Value(found) if found == value(n) => self.latencies.push(took),
            Answer::Value(_) => self.wrong += 1,
            Answer::NotFound => self.not_found += 1,
            Answer::Failed(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert(error);
            }
        }
    }
}

struct EndedGet {
    n: usize,
    took: Duration,
    answer: Answer,
}

/// All records of a range at once, each got by a task of its own; range after range.
pub(crate) async fn bursts<R: TestRuntime>(
    env: &TestEnv<R>,
    client: &impl GetClient,
    ranges: impl IntoIterator<Item = Range<usize>>,
    deadline: Duration,
) -> GetResults {
    let (mut gets, cpu) = (GetResults::default(), cpu());
    for range in ranges {
        let callers = range.map(|n| vec![n]);
        run_callers(env, client, callers, deadline, &mut gets).await;
    }
    finish(env, client, gets, cpu, deadline).await
}

/// So many callers at once, each of which gets record after record of the range.
pub(crate) async fn callers<R: TestRuntime>(
    env: &TestEnv<R>,
    client: &impl GetClient,
    callers: usize,
    range: Range<usize>,
    deadline: Duration,
) -> GetResults {
    let (mut gets, cpu) = (GetResults::default(), cpu());
    let shares = (0..callers).map(|caller| range.clone().skip(caller).step_by(callers).collect());
    run_callers(env, client, shares, deadline, &mut gets).await;
    finish(env, client, gets, cpu, deadline).await
}

async fn run_callers<R: TestRuntime>(
    env: &TestEnv<R>,
    client: &impl GetClient,
    callers: impl Iterator<Item = Vec<usize>>,
    deadline: Duration,
    gets: &mut GetResults,
) {
    let (ended, mut endings) = mpsc::unbounded();
    let begun = Instant::now();
    let (mut handles, mut last) = (Vec::new(), begun);
    for keys in callers {
        let (client, ended) = (client.clone(), ended.clone());
        gets.asked += keys.len();
        handles.push(env.spawn(async move {
            for n in keys {
                let begun = Instant::now();
                let answer = client.clone().get(key(n)).await;
                let _late = ended.unbounded_send(EndedGet { n, took: begun.elapsed(), answer });
            }
        }));
    }
    drop(ended);
    // A caller that is never answered keeps its end of the channel: the clock ends the burst then, and dropping the
    // handles the callers.
    let mut max_wait = pin!(wait(env.runtime(), deadline).fuse());
    loop {
        select! {
            end = endings.next() => match end {
                Some(end) => {
                    last = Instant::now();
                    gets.count(end);
                }
                None => break,
            },
            () = max_wait => break,
        }
    }
    gets.wall += last - begun;
}

/// Waits until kad has nothing left to do, so that nothing of this is measured with the next.
async fn finish<R: TestRuntime>(
    env: &TestEnv<R>,
    client: &impl GetClient,
    mut gets: GetResults,
    cpu_before: Option<Duration>,
    deadline: Duration,
) -> GetResults {
    let begun = Instant::now();
    while client.live().await > 0 && begun.elapsed() < deadline {
        wait(env.runtime(), POLL_INTERVAL).await;
    }
    gets.drain_time = begun.elapsed();
    gets.cpu = cpu().zip(cpu_before).map(|(now, before)| now.saturating_sub(before));
    assert_eq!(client.copies().await, 0, "a get leaves no copy that the next would find");
    gets
}

/// The processor time that this process has used so far, on all cores: unlike the time of day, it hardly depends on what
/// else the machine does. Only Linux tells it in a file.
fn cpu() -> Option<Duration> {
    /// The kernel's unit in that file, on every architecture.
    const TICKS_PER_SECOND: u32 = 100;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets, which may have spaces; user and system time are the 14th and
    // the 15th.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let ticks: u32 = times.next()?.parse::<u32>().ok()? + times.next()?.parse::<u32>().ok()?;
    Some(Duration::from_secs(1) * ticks / TICKS_PER_SECOND)
}
