// The routing context of a call: its unit key and the attribute slots its rules read.
#pragma once

#include <string_view>

#include "_fasthash.h"
#include "serve/call.h"

namespace router {

// The metadata field that names the peer. The engine writes it, never a client: neither a
// field nor a parameter of that name is taken from a request.
constexpr std::string_view kIdentityName = "x-peer-identity";

struct UnitKey {
  std::string_view bytes;
  uint8_t source = FH_UNIT_NONE;
};

// Scratch a loop owns: slots and the text of integer units live until the next call.
struct ContextScratch {
  fh_slot slots[FH_ATTRIBUTES_MAX];
  char unit_text[24];
};

// First hit wins: parameter targeting_key, the model's metadata keys in order, the unit
// tensor's first element, sequence_id. Empty keys do not count.
UnitKey find_unit(const LiveTable& table, const fh_model& model, const InferRequest& request,
                  const HeaderField* metadata, size_t count, ContextScratch* scratch);

// Fills the model's slots: parameters, then metadata (first wins), then `input.<name>`
// element 0. Views point into the request and the metadata.
void fill_slots(const LiveTable& table, const fh_model& model, const InferRequest& request,
                const HeaderField* metadata, size_t count, const UnitKey& unit,
                ContextScratch* scratch);

}  // namespace router
