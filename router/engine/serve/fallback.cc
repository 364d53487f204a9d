// What follows a run: judging it, charging the variant, stable as a second attempt, and the
// timers that decide when nobody waits any longer.
#include <algorithm>

#include "serve/loop.h"

namespace router {

void Loop::finish_attempt(Call* call, unsigned which, const Batch& batch) {
  Attempt& attempt = call->attempts[which];
  LoopVariant& variant = call->table->variants[call->variants[which]];
  const fh_model& model = call->table->live->view.models[call->model];
  Judgement judgement;
  bool has_failed = false;
  const bool is_assigned = which == 0 && call->variants[0] == call->assigned;
  if (is_assigned && batch.finished_ns != 0) {
    judge_latency(call, batch.finished_ns - call->received_ns, false);
  }
  if (attempt.status.ok()) {
    judgement = judge_answer(*call->table->live, model, attempt);
    const uint32_t stable = model.variant_first + model.stable;
    const Version* promised = call->table->variants[stable].version;
    if (call->variants[which] != stable && promised != nullptr &&
        !has_promised_shapes(promised->signature, attempt)) {
      judgement.is_valid = false;
    }
    if (judgement.is_valid) {
      variant.cells->breaker.succeeded();
    } else {
      has_failed = true;
      variant.cells->invalid.add(1);
      if (is_assigned) charge(call, FirstKind::invalid);
    }
  } else if (attempt.status.situation == Situation::model_failed) {
    has_failed = true;
    // A run we ended because nobody waited says nothing about the version, one that was
    // charged as late says it once.
    const bool is_charged = call->is_answered ? !batch.was_terminated.load() : !call->was_late;
    if (is_charged || which != 0) variant.cells->failures.add(1);
  }
  if (has_failed && !(call->is_answered && batch.was_terminated.load())) {
    variant.cells->breaker.failed(now_ns_);
  }
  if (call->is_answered) {
    if (!call->is_out_at_all()) release_call(call);
    return;
  }
  if (attempt.status.ok() && judgement.is_valid) return answer(call, which, judgement);
  const Situation situation = attempt.status.situation;
  const bool may_retry = has_failed || situation == Situation::overload ||
                         situation == Situation::cancelled;
  if (which == 0 && may_retry && !call->has_fallback && may_fall_back(*call)) {
    start_fallback(call);
    if (call->is_answered || call->has_fallback) return;
  }
  if (call->is_out_at_all()) return;  // the other attempt may still answer
  if (has_failed) {
    return refuse(call, fail(Situation::model_failed,
                             "model " + quoted(call->request.model_name) + " failed"));
  }
  refuse(call, attempt.status);
}

bool Loop::may_fall_back(const Call& call) const {
  const fh_model& model = call.table->live->view.models[call.model];
  const uint32_t stable = model.variant_first + model.stable;
  // A pin is static without a rule: who named a version wants that one or none. A rule
  // that gives everybody one version is static too, and is a rollout like any other.
  const bool is_pin =
      call.decision.reason == FH_REASON_STATIC && call.decision.rule == FH_NONE;
  return (model.flags & FH_MODEL_FALLBACK) != 0 && call.assigned != stable && !is_pin &&
         call.table->variants[stable].version != nullptr;
}

void Loop::start_fallback(Call* call) {
  call->has_fallback = true;
  call->fallback_ns = INT64_MAX;
  const fh_model& model = call->table->live->view.models[call->model];
  const Status status = start_attempt(call, 1, model.variant_first + model.stable);
  if (!status.ok() && !call->is_out_at_all()) return refuse(call, status);
  if (status.ok()) call->table->variants[call->assigned].cells->fallbacks.add(1);
  arm_timer(call);
}

// min(the variant's timeout, half of what remains, what remains less twice stable's p99).
int64_t Loop::fallback_time(Call* call, int64_t now) {
  if (call->has_fallback || !may_fall_back(*call) || call->variants[0] != call->assigned) {
    return INT64_MAX;
  }
  const LiveTable& table = *call->table->live;
  const fh_model& model = table.view.models[call->model];
  LoopVariant& stable = call->table->variants[model.variant_first + model.stable];
  constexpr int64_t kRefreshNs = 1'000'000'000;
  if (now - stable.p99_at_ns > kRefreshNs) {
    stable.p99_at_ns = now;
    stable.stable_p99_ns =
        stable.cells->stages().stages[static_cast<unsigned>(Stage::run)].quantile_ns(0.99);
  }
  const int64_t remaining = call->deadline_ns - now;
  int64_t after = std::min(remaining / 2, remaining - 2 * stable.stable_p99_ns);
  const uint32_t timeout_us = table.view.variants[call->assigned].timeout_us;
  if (timeout_us != 0) after = std::min(after, int64_t{timeout_us} * 1000);
  return now + std::max<int64_t>(after, 0);
}

void Loop::arm_timer(Call* call) {
  timers_.set(call, std::min(call->deadline_ns, call->fallback_ns));
}

void Loop::fire_timers() {
  if (timers_.next_ns() > now_ns_) return;
  const int64_t now = monotonic_ns();
  while (timers_.next_ns() <= now) {
    Call* call = timers_.first();
    timers_.cancel(call);
    VariantCells* cells = cells_of(*call);
    if (call->is_out[0]) judge_latency(call, now - call->received_ns, true);
    if (call->fallback_ns <= now && call->deadline_ns > now) {
      cells->timeouts.add(1);
      cells->breaker.failed(now);
      call->was_late = true;
      start_fallback(call);
    } else {
      if (!call->was_late) cells->timeouts.add(1);
      refuse(call, fail(Situation::deadline, "the deadline passed"));
    }
  }
}

// Nobody waits for these any more; a batch whose last waiter goes is terminated.
void Loop::abandon_attempts(Call* call) {
  for (unsigned which = 0; which < kAttemptsMax; ++which) {
    Batch* batch = call->batches[which];
    if (batch == nullptr) continue;
    batch->waiting.fetch_sub(1, std::memory_order_relaxed);
    upstreams_->cancel(batch, which == 0 && call->was_late);
  }
}

void Loop::cancel_call(Call* call) {
  if (call->is_answered) return;
  VariantCells* cells = cells_of(*call);
  cells->cancelled.add(1);
  if (call->is_out[0]) judge_latency(call, now_ns_ - call->received_ns, false);
  settle(call, Code::cancelled);
}

}  // namespace router
