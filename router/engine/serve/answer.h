// From a finished attempt to what the client reads: judging the output and telling the
// decision.
#pragma once

#include "serve/call.h"
#include "wire/oip_write.h"

namespace router {

struct Judgement {
  bool is_valid = true;
  bool has_score = false;
  double score = 0;   // of the first row
};

// Is the declared output there, finite where declared, and inside its range? An answer that
// does not carry the declared output (it was not requested) is not judged.
Judgement judge_answer(const LiveTable& table, const fh_model& model, const Attempt& attempt);

constexpr unsigned kAnnotationsMax = 8;

struct Annotations {
  ByteView encoded;                      // the part that is the same for all of a cell
  Annotation items[kAnnotationsMax];
  size_t count = 0;
  HeaderField fields[kAnnotationsMax];   // the same as trailers, filled by as_trailers
  char prediction_id[kPredictionIdLength];
  char bucket_text[8];
};

// What every answer of a cell says, appended encoded; made once, when a table is resolved.
void encode_annotations(const LiveTable& table, const fh_model& model, uint32_t variant,
                        uint32_t rule, uint8_t reason, std::string* out);

// `served` is the attempt that answered; `now_s` is real time for the prediction id.
void annotate(const Call& call, unsigned served, const Judgement& judgement, uint32_t now_s,
              uint32_t sequence, Annotations* out);
void as_trailers(Annotations* annotations);

const char* reason_name(uint8_t reason);

}  // namespace router
