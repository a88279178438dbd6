//! The second step of the chain: a fixed number of tokens.

use super::Processor;

/// Keeps the k highest scores, and every score equal to the k-th.
///
/// Equals transformers' `TopKLogitsWarper`: ties at the boundary keep more than k tokens.
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    /// A heap of the highest scores met so far, the lowest of them on top.
    highest: Vec<f32>,
}

impl TopK {
    /// Takes the number of tokens to keep.
    ///
    /// # Panics
    /// Panics if it is zero.
    #[must_use]
    pub fn new(k: usize) -> Self {
        assert!(k > 0, "top_k of zero keeps nothing");
        Self { k, highest: Vec::new() }
    }

    /// The k-th highest score. NaN counts as lower than anything.
    fn threshold(&mut self, scores: &[f32]) -> f32 {
        let heap = &mut self.highest;
        heap.clear();
        let (first, rest) = scores.split_at(self.k);
        heap.extend(first.iter().map(|&score| if score.is_nan() { f32::NEG_INFINITY } else { score }));
        for top in (0..heap.len() / 2).rev() {
            sift_down(heap, top);
        }
        for &score in rest {
            if score > heap[0] {
                heap[0] = score;
                sift_down(heap, 0);
            }
        }
        heap[0]
    }
}

impl Processor for TopK {
    fn process(&mut self, _tokens: &[u32], scores: &mut [f32]) {
        if self.k >= scores.len() {
            return;
        }
        let threshold = self.threshold(scores);
        for score in scores {
            if *score < threshold {
                *score = f32::NEG_INFINITY;
            }
        }
    }
}

/// Restores the heap below `top`: every parent is at most its children.
fn sift_down(heap: &mut [f32], mut top: usize) {
    loop {
        let mut least = top;
        for child in [2 * top + 1, 2 * top + 2] {
            if child < heap.len() && heap[child] < heap[least] {
                least = child;
            }
        }
        if least == top {
            return;
        }
        heap.swap(top, least);
        top = least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_at_the_boundary_are_all_kept() {
        let mut scores = [1.0, 3.0, 2.0, 2.0, 0.0, 2.0];
        TopK::new(2).process(&[], &mut scores);
        assert_eq!(scores, [f32::NEG_INFINITY, 3.0, 2.0, 2.0, f32::NEG_INFINITY, 2.0]);
    }

    #[test]
    fn the_threshold_is_the_kth_score_of_the_sorted_row() {
        let scores: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1009) as f32).collect();
        let mut sorted = scores.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for k in [1, 2, 3, 50, 999, 1000] {
            assert_eq!(TopK::new(k).threshold(&scores), sorted[k - 1]);
        }
    }
}
