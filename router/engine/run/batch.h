// Which attempts may run together. Values in, values out; any thread.
#pragma once

#include <vector>

#include "run/version.h"

namespace router {

// True when both may stand in one batch: rows known, and the same sizes behind dimension 0
// of every input. (Datatypes are the signature's, `bind` saw to that.) Same version.
bool can_join(const Attempt& a, const Attempt& b);

// Moves the first pending attempt, and those behind it that may run with it, to `chosen`
// (which it clears) and returns their rows. Obeys rows_max and batch_sizes, where only a
// prefix that adds up to an allowed size is stacked; one attempt alone always goes. Call it
// until nothing is pending. Deterministic; allocates nothing once the vectors have grown.
uint64_t form_batch(const Version& version, std::vector<Attempt*>* pending,
                    std::vector<Attempt*>* chosen);

}  // namespace router
