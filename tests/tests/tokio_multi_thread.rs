//! Runs the test suite on tokio with several threads.

kadence_tests::suite!(kadence_tests::TokioMultiThread);
