//! One file a verb (CNI 1.1, section 2, "CNI operations").

pub mod add;
pub mod check;
pub mod del;
pub mod gc;
pub mod status;
