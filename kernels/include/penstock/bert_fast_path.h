// The fast way of BERT's tokenizers: BertNormalizer (or none), BertPreTokenizer, WordPiece.
//
// A text is cut into what may not be cut further without knowing more: runs of characters that are neither
// whitespace nor punctuation nor, if they get spaces around them, ideographs; and each punctuation character
// or ideograph. Characters of those classes never combine, decompose to more than one character of the same
// class, or vanish: what stands between two of them is normalised by itself exactly as in the whole text, so
// its bytes decide its tokens, and a cache can answer them. Only what the cache has not got goes through the
// vocabulary, and only if it isn't plain ASCII through the general normaliser.
#pragma once

#include <memory>

#include "penstock/blob.h"
#include "penstock/pipeline.h"

namespace penstock {

struct BlockKernels;

// The fast path for the blob's chain of stages, or null if that is another one. `kernels`: the loops to use,
// null for this processor's best.
std::unique_ptr<FastPath> make_bert_fast_path(const BlobView& blob, const BlockKernels* kernels = nullptr);

}  // namespace penstock
