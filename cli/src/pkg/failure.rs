//! Exit codes of a registry's errors.

use kadence_registry::{
    GetError, PublishError,
    resolve::{InstallError, PackageInstallError, ResolveError},
};

use crate::exit::{Failure, Reason};

impl From<GetError> for Failure {
    fn from(error: GetError) -> Self {
        Self::new(of_get(&error), error)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let reason = match &error {
            PublishError::NoSuchPackage(_) => Reason::NotFound,
            PublishError::Index(kadence_registry::IndexError::NoSuchVersion { .. }) => Reason::NotFound,
            PublishError::Versions(error) => of_get(error),
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let reason = match &error {
            ResolveError::Unknown { .. } => Reason::NotFound,
            ResolveError::Lookup { source, .. } => of_get(source),
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        let reason = match &error {
            InstallError::Package { source: PackageInstallError::Get(error), .. } => of_get(error),
            _ => Reason::Failure,
        };
        Self::new(reason, error)
    }
}

fn of_get(error: &GetError) -> Reason {
    match error {
        GetError::Timeout { .. } => Reason::Timeout,
        // No peer answered at all.
        GetError::Inconclusive { answered: 0, .. } | GetError::Unavailable { providers: 0, .. } => Reason::NoPeer,
        _ => Reason::Failure,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kadence_registry::{ContentId, resolve::RequiredBy};

    use super::*;

    #[test]
    fn a_package_that_does_not_exist_differs_from_an_inconclusive_lookup() {
        let package: kadence_registry::PackageId =
            "12D3KooWMzV56vQ2jjX2SLkXUMi4oQ4Adk4UMHVmY2qR8NsbpnNR/units".parse().unwrap();
        let reason = |failure: Failure| failure.reason_name();
        let (package, required_by) = (Box::new(package), RequiredBy::default());
        let unknown = ResolveError::Unknown { package: package.clone(), required_by: required_by.clone() };
        assert_eq!(reason(unknown.into()), "not_found");
        let source = GetError::Timeout { after: Duration::from_secs(1) };
        let lookup = ResolveError::Lookup { package: package.clone(), required_by, source };
        assert_eq!(reason(lookup.into()), "timeout");
        assert_eq!(reason(GetError::Inconclusive { asked: 3, answered: 0 }.into()), "no_peer");
        assert_eq!(reason(GetError::Inconclusive { asked: 3, answered: 1 }.into()), "failure");
        let gone = GetError::Unavailable { content: ContentId::of(b""), providers: 2 };
        assert_eq!(reason(InstallError::Package { package: package.clone(), source: gone.into() }.into()), "failure");
        assert_eq!(reason(PublishError::NoSuchPackage(package).into()), "not_found");
    }
}
