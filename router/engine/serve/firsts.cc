// What the evidence of a rollout is made of: units seen for the first time, how long they
// waited, and the records that leave on the tape.
//
// Everything is charged to the variant that was assigned, once a call and kind: an answer of
// stable in its place is its error, and so is a call that was given up on.
#include <climits>

#include "serve/loop.h"

namespace router {
namespace {

constexpr uint16_t kLatencyJudged = 1u << 15;  // in Call::charged
static_assert(kFirstKinds <= 15);

uint64_t now_ms() { return static_cast<uint64_t>(realtime_ns() / 1'000'000); }

// Neighbouring buckets share a cluster. Claims are in a shuffled order, so that every
// variant is in all of them.
unsigned cluster_of(uint16_t bucket) { return unsigned{bucket} * kClusters / FH_BUCKETS; }

}  // namespace

void Loop::watch_unit(Call* call, bool is_sticky) {
  const LoopFirst& first = call->table->firsts[call->decision.cell];
  // Disabled: stable has the buckets of another, and nothing is compared any more.
  if (first.cells == nullptr || call->decision.reason == FH_REASON_DISABLED) return;
  call->first = &first;
  call->is_sticky = is_sticky;
  first.cells->requests.add(1);
  charge(call, FirstKind::exposure);
}

void Loop::charge(Call* call, FirstKind kind) {
  const auto at = static_cast<unsigned>(kind);
  if (call->first == nullptr || (call->charged >> at & 1) != 0) return;
  call->charged = static_cast<uint16_t>(call->charged | 1u << at);
  FirstCells* cells = call->first->cells;
  if (!call->is_sticky) return cells->other[at].add(1);
  const LiveFirst& live = *call->first->live;
  if (!live.scope->filters[at].is_first(call->decision.digest)) return;
  cells->sticky[at].add(1);
  const fh_rule& rule = call->table->live->view.rules[live.rule];
  if ((rule.flags & FH_RULE_RECORDS) != 0) record_first(*call, kind);
}

void Loop::charge_outcome(Call* call, Code code) {
  if (code == Code::ok && !call->has_fallback) {
    call->first->cells->detail().clusters[cluster_of(call->decision.bucket)].requests.add(1);
    return;
  }
  charge(call, FirstKind::error);
  if (call->has_fallback) charge(call, FirstKind::fallback);
  call->first->cells->errors.add(1);
  Cluster& cluster = call->first->cells->detail().clusters[cluster_of(call->decision.bucket)];
  cluster.requests.add(1);
  cluster.errors.add(1);
}

// From the read of the request to the end of the assigned variant's run: what its client
// waited for it, queue and batch included. An attempt that was given up on was too slow for
// every threshold, however short the time it was given.
void Loop::judge_latency(Call* call, int64_t ns, bool was_given_up) {
  if (call->first == nullptr || (call->charged & kLatencyJudged) != 0) return;
  call->charged |= kLatencyJudged;
  call->first->cells->detail().latency.observe(ns);
  const uint64_t word = call->first->live->edges->load(std::memory_order_relaxed);
  if (word == 0) return;
  const int position = was_given_up ? INT_MAX : Histogram::index_of(ns);
  for (unsigned which = 0; which < kEdges; ++which) {
    if (!is_over(word, which, position)) continue;
    charge(call, FirstKind{static_cast<uint8_t>(static_cast<unsigned>(FirstKind::over_p90) +
                                                which)});
  }
}

void Loop::watch_score(const Call& call, double score) {
  FirstCells* cells = call.first->cells;
  cells->score_count.add(1);
  cells->score_sum.add(score);
  cells->score_squares.add(score * score);
  cells->detail().clusters[cluster_of(call.decision.bucket)].score.add(score);
}

void Loop::record_first(const Call& call, FirstKind kind) {
  const LiveTable& table = *call.table->live;
  const fh_variant& variant = table.view.variants[call.assigned];
  const fh_rule& rule = table.view.rules[call.first->live->rule];
  tape().begin()
      .number(1, now_ms())
      .fixed(2, call.decision.digest)
      .bytes(3, table.text(rule.scope))
      .number(4, rule.attempt)
      .bytes(5, table.text(rule.name))
      .number(6, rule.rollout_revision)
      .bytes(7, table.text(variant.name))
      .number(8, variant.version)
      .number(9, variant.ordinal)
      .number(10, static_cast<unsigned>(kind));
  tape().end(Recorded::first_event);
}

void Loop::record_exposure(const Call& call, unsigned served, const Judgement& judgement) {
  const LiveTable& table = *call.table->live;
  const fh_decision& decision = call.decision;
  const fh_variant& variant = table.view.variants[call.assigned];
  const bool has_rule = decision.rule != FH_NONE;
  Record& record = tape().begin();
  record.number(1, now_ms())
      .bytes(2, table.text(table.view.models[call.model].name))
      .bytes(3, has_rule ? table.text(table.view.rules[decision.rule].name) : ByteView())
      .bytes(4, table.text(variant.name))
      .number(5, variant.version)
      .number(6, variant.ordinal)
      .number(7, decision.rollout_revision)
      .number(8, decision.bucket == FH_NO_BUCKET ? 0u : decision.bucket + 1u)
      .number(9, decision.propensity_bp)
      .number(10, decision.reason)
      .fixed(11, decision.digest)
      .number(12, decision.unit_source != FH_UNIT_NONE)
      .number(13, call.variants[served] != call.assigned);
  if (judgement.has_score) record.real(14, judgement.score);
  for (size_t i = 0; i < annotations_.count; ++i) {
    const Annotation& item = annotations_.items[i];
    if (item.text.data() == annotations_.prediction_id) record.bytes(15, item.text);
  }
  tape().end(Recorded::exposure);
}

void Loop::record_request(const Call& call, const fh_model& model, const HeaderField* metadata,
                          size_t count) {
  if (draw_random() % FH_BUCKETS >= model.record_bp) return;
  const LiveTable& table = *call.table->live;
  const ByteView body = call.body.view();
  Record& record = tape().begin();
  record.number(1, now_ms()).bytes(2, call.request.model_name).bytes(3, call.request.model_version);
  for (uint32_t i = 0; i < model.record_count; ++i) {
    const std::string_view key = table.text(table.view.unit_keys[model.record_first + i]);
    for (size_t j = 0; j < count; ++j) {
      if (metadata[j].name != key) continue;
      Record pair;
      record.bytes(4, pair.bytes(1, key).bytes(2, metadata[j].value).view());
    }
  }
  if (body.size() <= model.record_bytes_max) record.bytes(5, body);
  record.number(6, body.size());
  tape().end(Recorded::request);
}

}  // namespace router
