// The life of a request, read from top to bottom: one turn of a loop.
//
// A turn reads every ready socket; each message is decoded, admitted and routed at once and
// its attempt put behind those of the same variant. When all is read, each variant's attempts
// form batches, which run here if they are short and proved, else on the executors. Then the
// clock is looked at, and every connection is written once. No turn waits for a batch to
// fill.
#include <algorithm>
#include <charconv>

#include "run/batch.h"
#include "serve/loop.h"

namespace router {
namespace {

Status parse_pin(std::string_view text, int64_t* pin) {
  *pin = FH_PIN_NONE;
  if (text.empty()) return {};
  uint32_t version = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), version);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size()) {
    return fail(Situation::bad_input,
                "model_version '" + std::string(text.substr(0, 64)) +
                    "' is not a version: expected a decimal integer");
  }
  *pin = version;
  return {};
}

}  // namespace

void Loop::run() {
  while (!is_stopping_) turn();
  cut_off();  // nobody inside the process may be left waiting
  wake_local_callers();
}

void Loop::turn() {
  wait();  // fills ready_ and now_ns_
  take_table();
  turn_load_ns_ = 0;
  if (returned_.load(std::memory_order_relaxed) != nullptr) finish_shadows();
  if (has_mail_) {
    mailbox_.take(&letters_);
    for (Letter& letter : letters_) on_letter(&letter);
    letters_.clear();
  }
  upstreams_->read(now_ns_);
  finish_upstream();
  for (Connection* connection : ready_) read_from(connection);
  ready_.clear();
  if (!due_.empty()) decoded_ns_ = monotonic_ns();
  run_pending();
  fire_timers();
  run_pending();  // fallbacks the timers started
  send_upstream();
  write_dirty();
  if (!shadow_due_.empty()) send_shadows();
  housekeep();
  sweep();
  wake_local_callers();
  counters_.turns.add(1);
}

void Loop::take_table() {
  LiveTable* live = core_->table.load(std::memory_order_acquire);
  if (live == nullptr || (table_ != nullptr && table_->live == live)) return;
  LoopTable* old = table_;
  tables_.push_back(hold_table(live, index_));
  table_ = tables_.back().get();
  if (old == nullptr) {
    held_generation_.store(live->generation, std::memory_order_release);
  } else if (old->references == 0) {
    ++old->references;
    release_table(old);
  }
}

void Loop::release_table(LoopTable* table) {
  if (--table->references != 0 || table == table_) return;
  tables_.erase(std::find_if(tables_.begin(), tables_.end(),
                             [&](const auto& held) { return held.get() == table; }));
  held_generation_.store(tables_.front()->live->generation, std::memory_order_release);
}

void Loop::on_letter(Letter* letter) {
  switch (letter->kind) {
    case LetterKind::batch: return finish_batch(static_cast<Batch*>(letter->pointer));
    case LetterKind::connection:
      return adopt(letter->fd, letter->listener, std::move(letter->peer));
    case LetterKind::local_call: return begin_local(static_cast<LocalCall*>(letter->pointer));
    case LetterKind::reply: {
      std::unique_ptr<MethodReply> reply(static_cast<MethodReply*>(letter->pointer));
      return on_reply(reply.get());
    }
    case LetterKind::table: return;  // take_table has seen it
    case LetterKind::drain: return start_drain();
    case LetterKind::cut_off: return cut_off();
    case LetterKind::stop: is_stopping_ = true;
  }
}

void Loop::begin_call(Exchange* exchange, BodyRef body) {
  Call* call = make_call();
  call->exchange = exchange;
  exchange->calls.push_back(call);
  if (exchange->kind == ExchangeKind::stream_infer) {
    call->place = exchange->answers_from + exchange->answers.size();
    exchange->answers.emplace_back();
  }
  call->table = table_;
  if (table_ != nullptr) ++table_->references;
  call->model = FH_NONE;
  call->body = std::move(body);
  call->received_ns = now_ns_;
  call->decoded_ns = 0;
  const EngineOptions& options = core_->options;
  const int64_t wanted =
      exchange->timeout_ns < 0 ? options.deadline_default_ns : exchange->timeout_ns;
  call->deadline_ns = now_ns_ + std::min(wanted, options.deadline_max_ns);
  counters_.calls.store(counters_.calls.load(std::memory_order_relaxed) + 1,
                        std::memory_order_relaxed);
  const Status status = admit(call);
  if (!status.ok()) refuse(call, status);
}

Status Loop::admit(Call* call) {
  if (is_cut_off_) return fail(Situation::draining, "the server is shutting down");
  if (call->exchange->answers.size() > core_->options.stream_calls_max) {
    return fail(Situation::overload, "too many requests in flight on this stream");
  }
  Status status = read_infer(call->body.view(), &call->request);
  if (!status.ok()) return status;
  if (call->table == nullptr) return fail(Situation::not_ready, "no model is ready yet");
  const uint32_t model = call->table->live->find_model(call->request.model_name);
  if (model == FH_NONE) {
    return fail(Situation::unknown_model,
                "unknown model " + quoted(call->request.model_name));
  }
  call->model = model;
  // Also when a connection was read late: what nobody waits for is not run.
  if (call->deadline_ns <= now_ns_) {
    return fail(Situation::deadline, "the deadline passed before the request was read");
  }
  return route_call(call);
}

Status Loop::route_call(Call* call) {
  const LiveTable& table = *call->table->live;
  const fh_model& model = table.view.models[call->model];
  const InferRequest& request = call->request;
  size_t count = 0;
  const HeaderField* metadata = call->exchange->metadata(&count);
  fh_request wanted{};
  Status status = parse_pin(request.model_version, &wanted.pin);
  if (!status.ok()) return status;
  const UnitKey unit = find_unit(table, model, request, metadata, count, &scratch_);
  fill_slots(table, model, request, metadata, count, unit, &scratch_);
  wanted.model = call->model;
  wanted.unit = reinterpret_cast<const uint8_t*>(unit.bytes.data());
  wanted.unit_length = unit.bytes.size();
  wanted.unit_source = unit.source;
  if (unit.source == FH_UNIT_NONE || model.shadow_count != 0) wanted.random = draw_random();
  wanted.slots = scratch_.slots;
  wanted.regex = match_regex;
  wanted.regex_context = &table;
  core_->kernel->route(&table.view, &wanted, &call->decision);
  const std::string name = call->decision.outcome == FH_ROUTED
                               ? std::string()
                               : "model " + quoted(request.model_name);
  switch (call->decision.outcome) {
    case FH_ROUTED: break;
    case FH_REFUSED_UNIT:
      return fail(Situation::refused_unit,
                  name + " needs a unit key: parameter targeting_key or its metadata key");
    case FH_PIN_UNKNOWN:
      return fail(Situation::unknown_model,
                  name + " version " + quoted(request.model_version) + " is not found");
    case FH_PIN_DENIED:
      return fail(Situation::refused_pin, name + " does not accept a model_version");
    default:
      if (table.versions[model.variant_first + call->decision.variant] == nullptr) {
        return fail(Situation::not_ready,
                    name + " version " + quoted(request.model_version) + " is not ready");
      }
      return fail(Situation::refused_pin,
                  name + " version " + quoted(request.model_version) + " is disabled");
  }
  core_->kernel->count(call->table->routes[call->decision.cell], &call->decision);
  watch_unit(call, unit.source != FH_UNIT_NONE);
  if (model.record_bp != 0) record_request(*call, model, metadata, count);
  if ((model.flags & FH_MODEL_PREDICTION_ID) != 0 && !table.keys.empty()) {
    call->unit_tag = table.keys[0].tag_unit(unit.bytes);
  }
  call->assigned = model.variant_first + call->decision.variant;
  if (model.shadow_count != 0) take_shadows(call, wanted);
  const uint32_t stable = model.variant_first + model.stable;
  VariantCells* cells = call->table->variants[call->assigned].cells;
  if (call->assigned != stable && may_fall_back(*call) && !cells->breaker.allows(now_ns_)) {
    // Taken out: stable answers at once, and the request stays the candidate's.
    cells->skipped.add(1);
    cells->fallbacks.add(1);
    call->has_fallback = true;
    return start_attempt(call, 0, stable);
  }
  return start_attempt(call, 0, call->assigned);
}

Status Loop::start_attempt(Call* call, unsigned which, uint32_t variant) {
  LoopVariant& target = call->table->variants[variant];
  if (target.version == nullptr) {
    return fail(Situation::not_ready,
                "model " + quoted(call->request.model_name) + " has no version ready");
  }
  Attempt& attempt = call->attempts[which];
  Status status = bind(target.version->signature, call->request.model_name, call->request,
                       &attempt.binding);
  if (!status.ok()) return status;
  if (!target.version->may_batch) attempt.binding.rows = 0;
  const bool is_local = target.version->upstream == nullptr;
  const uint64_t rows = std::max<uint64_t>(attempt.binding.rows, 1);
  const int64_t run_ns = is_local ? target.version->predicted_ns(rows) : 0;
  const fh_model& model = call->table->live->view.models[call->model];
  const int64_t wait_ns =
      is_local ? core_->executors->predicted_wait_ns(*target.version, target.lane) + turn_load_ns_
               : 0;
  if (wait_ns > int64_t{model.queue_us_max} * 1000) {
    return fail(Situation::overload, "the queue of model " +
                                         quoted(call->request.model_name) + " is full");
  }
  if (now_ns_ + wait_ns + run_ns > call->deadline_ns && wait_ns > 0) {
    return fail(Situation::overload, "the queue of model " +
                                         quoted(call->request.model_name) +
                                         " is longer than the deadline");
  }
  attempt.request = &call->request;
  attempt.owner = call;
  attempt.deadline_ns = call->deadline_ns;
  attempt.status = Status{};
  call->variants[which] = variant;
  call->is_out[which] = true;
  call->batches[which] = nullptr;
  if (target.pending.empty()) due_.push_back({call->table, variant});
  target.pending.push_back(&attempt);
  // A batch shares most of what a run costs, so rows behind the first weigh little.
  turn_load_ns_ += target.pending.size() == 1 ? run_ns : run_ns / 8;
  return {};
}

void Loop::run_pending() {
  // Whoever runs first waits least: variants take turns at it, so that of two that are
  // compared neither is always behind the other.
  if (due_.size() > 1) {
    const uint64_t first = rotation_++ % due_.size();
    std::rotate(due_.begin(), due_.begin() + static_cast<std::ptrdiff_t>(first), due_.end());
  }
  // Batches that run here may fail and start fallbacks, which append to due_.
  for (size_t i = 0; i < due_.size(); ++i) {
    const Due due = due_[i];
    // An old table would leave with its last call, which may be answered right here.
    ++due.table->references;
    LoopVariant& variant = due.table->variants[due.variant];
    while (!variant.pending.empty()) {
      Batch* batch = make_batch();
      batch->rows = form_batch(*variant.version, &variant.pending, &batch->attempts);
      place_batch(due.table, due.variant, batch);
    }
    release_table(due.table);
  }
  due_.clear();
}

bool Loop::may_run_here(const LoopTable& table, uint32_t variant, const Batch& batch) const {
  if (batch.version->predicted_ns(batch.rows) > core_->options.executor.loop_run_ns) {
    return false;
  }
  // Compared like with like: variants that split traffic run in the same place, so one that
  // has not proved itself keeps all of them on the executors.
  for (const uint32_t index : table.live->compared_with[variant]) {
    const Version* version = table.variants[index].version;
    if (!version->may_run_on_loop || !version->is_proved()) return false;
  }
  return true;
}

void Loop::place_batch(LoopTable* table, uint32_t variant, Batch* batch) {
  batch->version = table->variants[variant].version;
  batch->lane = table->variants[variant].lane;
  batch->loop = this;
  batch->was_terminated.store(false, std::memory_order_relaxed);
  batch->deadline_ns = 0;
  uint32_t waiting = 0;
  for (Attempt* attempt : batch->attempts) {
    auto* call = static_cast<Call*>(attempt->owner);
    const auto which = static_cast<unsigned>(attempt - call->attempts);
    call->batches[which] = batch;
    if (call->decoded_ns == 0) call->decoded_ns = decoded_ns_;
    batch->deadline_ns = std::max(batch->deadline_ns, attempt->deadline_ns);
    waiting += call->is_answered ? 0 : 1;
  }
  batch->waiting.store(waiting, std::memory_order_relaxed);
  batch->started_ns = batch->finished_ns = 0;
  if (waiting == 0) {
    for (Attempt* attempt : batch->attempts) attempt->status = fail(Situation::cancelled, "");
    return finish_batch(batch);
  }
  if (may_run_here(*table, variant, *batch)) {
    counters_.loop_runs.add(1);
    batch->submitted_ns = now_ns_;
    core_->executors->watch_begin(&slot_, batch, now_ns_);
    batch->version->run(batch, &slot_);
    core_->executors->watch_end(&slot_);
    return finish_batch(batch);
  }
  counters_.handed_over.add(1);
  batch->submitted_ns = now_ns_;
  for (Attempt* attempt : batch->attempts) {
    auto* call = static_cast<Call*>(attempt->owner);
    if (call->is_answered) continue;
    if (attempt == &call->attempts[0]) call->fallback_ns = fallback_time(call, now_ns_);
    arm_timer(call);
  }
  if (batch->version->upstream != nullptr) return upstreams_->send(batch, monotonic_ns());
  if (core_->executors->submit(batch, now_ns_)) return;
  for (Attempt* attempt : batch->attempts) {
    attempt->status = fail(Situation::overload, "the queue of the model is full");
  }
  finish_batch(batch);
}

// Writes what this turn sends to other servers. A connection that is lost there gives its
// attempts back, whose fallbacks may be sent in turn; a call has two attempts, so this ends.
void Loop::send_upstream() {
  upstreams_->flush(now_ns_);
  while (!upstreams_->is_idle()) {
    finish_upstream();
    if (due_.empty()) return;
    run_pending();
    upstreams_->flush(now_ns_);
  }
}

void Loop::finish_upstream() {
  if (!upstreams_->take_finished(&come_back_)) return;
  for (Batch* batch : come_back_) finish_batch(batch);
  come_back_.clear();
}

void Loop::finish_batch(Batch* batch) {
  if (batch->is_shadow) return finish_sent_shadow(batch);
  observe_batch(*batch);
  for (Attempt* attempt : batch->attempts) {
    auto* call = static_cast<Call*>(attempt->owner);
    const auto which = static_cast<unsigned>(attempt - call->attempts);
    call->is_out[which] = false;
    call->batches[which] = nullptr;
    finish_attempt(call, which, *batch);
  }
  if (!answered_.empty()) {
    const int64_t end = monotonic_ns();
    const bool was_run = batch->finished_ns != 0;
    for (const Answered& done : answered_) {
      if (was_run) done.stages->stages[static_cast<unsigned>(Stage::encode)].observe(
          (end - batch->finished_ns) / static_cast<int64_t>(answered_.size()));
      done.stages->stages[static_cast<unsigned>(Stage::total)].observe(end - done.received_ns);
    }
    answered_.clear();
  }
  batch->attempts.clear();
  free_batches_.push_back(batch);
}

}  // namespace router
