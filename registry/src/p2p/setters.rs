/// Adds chainable setters to a configuration, each named as its field. Those after `into` take anything that converts
/// into the type of the field.
macro_rules! setters {
    ($type:ident { $($field:ident: $ty:ty),* $(,)? $(; into $($into_field:ident: $into:ty),* $(,)?)? }) => {
        impl $type {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $ty) -> Self {
                    self.$field = $field;
                    self
                }
            )*
            $($(
                #[doc = concat!("Sets [`", stringify!($into_field), "`](field@Self::", stringify!($into_field), ").")]
                #[must_use]
                pub fn $into_field(mut self, $into_field: impl Into<$into>) -> Self {
                    self.$into_field = $into_field.into();
                    self
                }
            )*)?
        }
    };
}

pub(super) use setters;
