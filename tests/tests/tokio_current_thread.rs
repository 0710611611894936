//! Runs the test suite on tokio with a single thread.

kadence_tests::suite!(kadence_tests::TokioCurrentThread);
