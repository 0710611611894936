//! Runs the test suite on smol.

kadence_tests::suite!(kadence_tests::Smol);
