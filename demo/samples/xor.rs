//! A toy: the distance of Kademlia, and the bucket that a peer belongs to.

/// The distance of two ids.
pub fn distance(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    let mut distance = [0; 32];
    for ((out, a), b) in distance.iter_mut().zip(a).zip(b) {
        *out = a ^ b;
    }
    distance
}

/// Number of leading bits that two ids share; `None` if they are equal.
pub fn bucket(a: [u8; 32], b: [u8; 32]) -> Option<u32> {
    let mut shared = 0;
    for byte in distance(a, b) {
        shared += byte.leading_zeros();
        if byte != 0 {
            return Some(shared);
        }
    }
    None
}

#[test]
fn ids_that_differ_in_the_first_bit_are_as_far_apart_as_can_be() {
    assert_eq!(bucket([0; 32], [0x80; 32]), Some(0));
    assert_eq!(bucket([7; 32], [7; 32]), None);
}
