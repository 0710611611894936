//! Runs the test suite on async-std.

kadence_tests::suite!(kadence_tests::AsyncStd);
