#include "serve/answer.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

namespace router {
namespace {

template <typename T>
T element_at(ByteView bytes, uint64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof value);
  return value;
}

template <typename T>
bool all_finite(ByteView bytes, uint64_t elements) {
  // Summing the products with zero keeps the loop free of branches: any NaN or infinity
  // makes the sum NaN.
  T sum = 0;
  for (uint64_t i = 0; i < elements; ++i) sum += element_at<T>(bytes, i) * T(0);
  return sum == T(0);
}

bool is_finite(const TensorView& tensor) {
  if (tensor.type == DataType::fp32) return all_finite<float>(tensor.bytes, tensor.elements);
  if (tensor.type == DataType::fp64) return all_finite<double>(tensor.bytes, tensor.elements);
  return true;
}

bool is_countable(DataType type) {
  return type != DataType::bytes && type != DataType::fp16 && type != DataType::bf16;
}

void add_text(Annotations* out, const char* name, std::string_view text) {
  Annotation& item = out->items[out->count++];
  item = Annotation{};
  item.name = name;
  item.text = text;
  item.is_text = true;
}

void mint(const Call& call, unsigned served, const Judgement& judgement, uint32_t now_s,
          uint32_t sequence, Annotations* out) {
  const LiveTable& table = *call.table->live;
  const fh_variant& variant = table.view.variants[call.variants[served]];
  const fh_model& model = table.view.models[call.model];
  Prediction prediction;
  prediction.time_s = now_s;
  prediction.model_hash = table.model_hashes[call.model];
  prediction.version = variant.version;
  if (call.decision.rule != FH_NONE) prediction.rule_hash = table.rule_hashes[call.decision.rule];
  prediction.rollout_revision = call.decision.rollout_revision;
  prediction.variant = static_cast<uint8_t>(call.variants[served] - model.variant_first);
  prediction.bucket = call.decision.bucket == FH_NO_BUCKET ? 0x3FFF : call.decision.bucket;
  prediction.is_fallback = served != 0;
  prediction.is_sticky = call.decision.unit_source != FH_UNIT_NONE;
  prediction.propensity_bp = call.decision.propensity_bp;
  prediction.score = judgement.has_score ? static_cast<float>(judgement.score)
                                         : std::numeric_limits<float>::quiet_NaN();
  prediction.sequence = sequence;
  prediction.unit_tag = call.unit_tag;
  table.keys[0].mint(prediction, out->prediction_id);
  add_text(out, "prediction_id", {out->prediction_id, kPredictionIdLength});
}

void add_fixed(const LiveTable& table, uint32_t variant, uint32_t rule, uint8_t reason,
               Annotations* out) {
  add_text(out, "route_variant", table.text(table.view.variants[variant].name));
  if (rule != FH_NONE) {
    add_text(out, "route_rollout", table.text(table.view.rules[rule].name));
  }
  add_text(out, "route_reason", reason_name(reason));
  add_text(out, "route_revision", {table.revision, 16});
}

}  // namespace

const char* reason_name(uint8_t reason) {
  constexpr const char* kNames[] = {"STATIC", "OVERRIDE", "HOLDOUT", "TARGETING_MATCH",
                                    "SPLIT", "DEFAULT", "FALLBACK", "DISABLED"};
  return kNames[reason & 7];
}

Judgement judge_answer(const LiveTable& table, const fh_model& model, const Attempt& attempt) {
  Judgement judgement;
  if (model.output_tensor.length == 0) return judgement;
  const std::string_view name = table.text(model.output_tensor);
  for (const TensorView& output : attempt.outputs) {
    if (output.name != name) continue;
    if ((model.flags & FH_MODEL_FINITE) != 0 && !is_finite(output)) {
      judgement.is_valid = false;
      return judgement;
    }
    if (!is_countable(output.type) || output.elements == 0) return judgement;
    // A row is what stands behind dimension 0; a scalar or vector has rows of one element.
    const uint64_t rows =
        output.shape.rank == 0 ? 1 : static_cast<uint64_t>(output.shape.dims[0]);
    const uint64_t width = output.elements / rows;
    if (model.output_index >= width) {
      judgement.is_valid = false;
      return judgement;
    }
    for (uint64_t row = 0; row < rows; ++row) {
      const double value = number_at(output, row * width + model.output_index);
      // A NaN that was not declared impossible has no order; only the range refuses it.
      if (value < model.output_min || value > model.output_max) judgement.is_valid = false;
      if (row == 0) {
        judgement.score = value;
        judgement.has_score = std::isfinite(value);
      }
    }
    return judgement;
  }
  return judgement;
}

void encode_annotations(const LiveTable& table, const fh_model& model, uint32_t variant,
                        uint32_t rule, uint8_t reason, std::string* out) {
  if ((model.annotate & FH_ANNOTATE_PARAMETERS) == 0) return;
  Annotations fixed;
  add_fixed(table, variant, rule, reason, &fixed);
  for (size_t i = 0; i < fixed.count; ++i) append_annotation(fixed.items[i], out);
}

void annotate(const Call& call, unsigned served, const Judgement& judgement, uint32_t now_s,
              uint32_t sequence, Annotations* out) {
  const LiveTable& table = *call.table->live;
  const fh_model& model = table.view.models[call.model];
  out->count = 0;
  out->encoded = {};
  if (model.annotate == 0) return;
  const fh_decision& decision = call.decision;
  const bool is_fallback = call.variants[served] != call.assigned;
  const bool is_usual = !is_fallback && decision.reason != FH_REASON_DISABLED &&
                        (model.annotate & FH_ANNOTATE_TRAILERS) == 0;
  if (is_usual) {
    out->encoded = table.annotations[decision.cell];
  } else {
    const uint8_t reason = is_fallback ? uint8_t{FH_REASON_FALLBACK} : decision.reason;
    add_fixed(table, call.variants[served], decision.rule, reason, out);
  }
  if (decision.bucket != FH_NO_BUCKET) {
    Annotation& item = out->items[out->count++];
    item = Annotation{};
    item.name = "route_bucket";
    item.integer = decision.bucket;
  }
  if (is_fallback) {
    add_text(out, "route_fallback", table.text(table.view.variants[call.assigned].name));
  }
  if ((model.flags & FH_MODEL_PREDICTION_ID) != 0 && !table.keys.empty()) {
    mint(call, served, judgement, now_s, sequence, out);
  }
}

void as_trailers(Annotations* annotations) {
  for (size_t i = 0; i < annotations->count; ++i) {
    const Annotation& item = annotations->items[i];
    std::string_view value = item.text;
    if (!item.is_text) {
      const auto bucket = static_cast<unsigned>(item.integer);
      const int length = std::snprintf(annotations->bucket_text,
                                       sizeof annotations->bucket_text, "%u", bucket);
      value = {annotations->bucket_text, static_cast<size_t>(length)};
    }
    annotations->fields[i] = {item.name, value};
  }
}

}  // namespace router
