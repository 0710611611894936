//! Time of a request's whole life, by the number of pending requests.

mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use self::support::Load;

fn lifecycle(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lifecycle");
    for pending in [1_000, 10_000, 100_000, 1_000_000] {
        let mut load = Load::new(pending);
        group.bench_function(BenchmarkId::from_parameter(pending), |bencher| bencher.iter(|| load.lifecycle()));
        assert!(load.ended > 0);
    }
    group.finish();
}

criterion_group!(benches, lifecycle);
criterion_main!(benches);
