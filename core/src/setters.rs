/// Adds chainable setters to a configuration, each named as its field.
///
/// After `const`, they are const functions, for types without a destructor. Those after `into` take anything that
/// converts into the field's type, so that an `Option` is set by its value or by `None`.
macro_rules! setters {
    (const $type:ident { $($field:ident: $ty:ty),* $(,)? }) => {
        impl $type {$(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
            #[must_use]
            pub const fn $field(mut self, $field: $ty) -> Self {
                self.$field = $field;
                self
            }
        )*}
    };
    ($type:ident { $($field:ident: $ty:ty),* $(; into $($option:ident: $into:ty),*)? }) => {
        impl $type {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $ty) -> Self {
                    self.$field = $field;
                    self
                }
            )*
            $($(
                #[doc = concat!("Sets [`", stringify!($option), "`](Self#structfield.", stringify!($option), ").")]
                #[must_use]
                pub fn $option(mut self, $option: impl Into<$into>) -> Self {
                    self.$option = $option.into();
                    self
                }
            )*)?
        }
    };
}

pub(crate) use setters;
