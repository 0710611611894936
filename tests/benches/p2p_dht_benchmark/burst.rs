//! Concurrent gets and their results.

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

/// Interval between two checks for running queries.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Results of a number of gets.
#[derive(Debug, Clone, Default)]
pub(crate) struct GetResults {
    pub(crate) asked: usize,
    /// Time from the first get to the last answer, summed over bursts. Gets that are never answered do not count.
    pub(crate) wall: Duration,
    /// Latencies of the correct answers.
    pub(crate) latencies: Vec<Duration>,
    /// Number of gets that reported a missing record.
    pub(crate) not_found: usize,
    /// Number of gets that ended with another error.
    pub(crate) failed: usize,
    /// First of those errors.
    pub(crate) first_failure: Option<String>,
    /// Number of answers with a wrong value.
    pub(crate) wrong: usize,
    /// Processor time of the whole process, including servers and the time until kad is idle. `None` where it is not
    /// available.
    pub(crate) cpu: Option<Duration>,
    /// Time from the last answer until kad had no running query.
    pub(crate) drain_time: Duration,
}

impl GetResults {
    /// Returns the number of gets that were not answered in time.
    pub(crate) fn lost(&self) -> usize {
        self.asked - self.latencies.len() - self.not_found - self.failed - self.wrong
    }

    /// Returns the number of gets without a correct answer.
    pub(crate) fn not_right(&self) -> usize {
        self.asked - self.latencies.len()
    }

    /// Returns the number of correct answers per second.
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

/// Gets all records of a range concurrently, each in its own task; range after range.
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

/// Runs `callers` concurrent callers, each of which gets its share of the range, one record after the other.
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
    // A caller that is never answered keeps its sender. Then the timer ends the burst, and dropping the handles cancels
    // the callers.
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

/// Waits until kad is idle, so that no query affects the next measurement.
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
    assert_eq!(client.copies().await, 0, "a get must not leave a local copy that later gets would find");
    gets
}

/// Returns the processor time that this process has used on all cores. Other load on the machine hardly affects it.
/// Available on Linux only.
fn cpu() -> Option<Duration> {
    /// Unit of the file, on every architecture.
    const TICKS_PER_SECOND: u32 = 100;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets, which may contain spaces. User and system time are fields 14
    // and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let ticks: u32 = times.next()?.parse::<u32>().ok()? + times.next()?.parse::<u32>().ok()?;
    Some(Duration::from_secs(1) * ticks / TICKS_PER_SECOND)
}
