// The life of a request, read from top to bottom: one turn of a loop.
//
// A turn reads every ready socket; each message is decoded, admitted and routed at once and
// its attempt put behind those of the same variant. When all is read, each variant's attempts
// form batches, which run here if they are short and proved, else on the executors. Then the
// clock is looked at, and every connection is written once. No turn waits for a batch to
// fill.
#include <algorithm>
#include <charconv>

#include "engine.h"
#include "run/batch.h"
#include "serve/loop.h"

namespace router {
namespace {

constexpr std::string_view kInferPath = "/inference.GRPCInferenceService/ModelInfer";
constexpr std::string_view kStreamInferPath = "/inference.GRPCInferenceService/ModelStreamInfer";

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

std::string quoted(std::string_view name) {
  return "'" + std::string(name.substr(0, kNameMax)) + "'";
}

}  // namespace

void Loop::run() {
  while (!is_stopping_) turn();
  cut_off();  // nobody inside the process may be left waiting
}

void Loop::turn() {
  wait();  // fills ready_ and now_ns_
  take_table();
  turn_load_ns_ = 0;
  if (has_mail_) {
    mailbox_.take(&letters_);
    for (Letter& letter : letters_) on_letter(&letter);
    letters_.clear();
  }
  for (Connection* connection : ready_) read_from(connection);
  ready_.clear();
  if (!due_.empty()) decoded_ns_ = monotonic_ns();
  run_pending();
  fire_timers();
  run_pending();  // fallbacks the timers started
  write_dirty();
  housekeep();
  sweep();
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

void Loop::on_event(Connection* connection, Event* event) {
  auto* exchange = static_cast<Exchange*>(event->stream->call);
  switch (event->kind) {
    case EventKind::opened: return open_exchange(connection, event->stream);
    case EventKind::message:
      if (exchange != nullptr) on_message(exchange, std::move(event->body));
      return;
    case EventKind::half_closed:
      if (exchange != nullptr) on_half_closed(exchange);
      return;
    case EventKind::failed:
      if (exchange != nullptr) finish_exchange(exchange, event->status);
      return;
    case EventKind::closed:
      if (exchange != nullptr) on_closed(exchange, event->by_peer);
      connection->grpc.forget(event->stream);
      return;
    case EventKind::drained: return;
  }
}

void Loop::open_exchange(Connection* connection, Stream* stream) {
  Exchange* exchange = make_exchange();
  exchange->connection = connection;
  exchange->stream = stream;
  exchange->timeout_ns = stream->timeout_ns;
  stream->call = exchange;
  const bool is_data = connection->listener == ENGINE_DATA;
  if (is_data && stream->path == kInferPath) {
    exchange->kind = ExchangeKind::infer;
    return;
  }
  if (is_data && stream->path == kStreamInferPath) {
    exchange->kind = ExchangeKind::stream_infer;
    for (const HeaderField& field : stream->metadata) {
      if (field.name == "triton_grpc_error" && field.value == "true") {
        exchange->wants_status = true;
      }
    }
    return;
  }
  const int method = core_->methods.find(stream->path, connection->listener);
  if (method < 0) {
    finish_exchange(exchange, fail(Situation::unknown_method,
                                   "unknown method " + quoted(stream->path)));
    return;
  }
  exchange->kind = ExchangeKind::method;
  exchange->method = static_cast<uint32_t>(method);
  exchange->id = (uint64_t{index_} << 48) | next_exchange_++;
  method_exchanges_[exchange->id] = exchange;
}

void Loop::on_message(Exchange* exchange, BodyRef body) {
  if (exchange->is_finished) return;
  if (exchange->kind == ExchangeKind::stream_infer) return begin_call(exchange, std::move(body));
  if (exchange->kind == ExchangeKind::method &&
      core_->methods.info(exchange->method).is_streaming) {
    return on_method_message(exchange, std::move(body));
  }
  if (exchange->body) {
    return finish_exchange(exchange, fail(Situation::bad_framing,
                                          "a unary call carried more than one message"));
  }
  exchange->body = std::move(body);
}

void Loop::on_half_closed(Exchange* exchange) {
  exchange->is_half_closed = true;
  if (exchange->is_finished) return;
  switch (exchange->kind) {
    case ExchangeKind::refused: return;
    case ExchangeKind::stream_infer:
      if (exchange->calls.empty()) finish_exchange(exchange, Status{});
      return;
    case ExchangeKind::method:
      if (core_->methods.info(exchange->method).is_streaming) {
        core_->methods.push({exchange->id, exchange->method, ENGINE_EVENT_END, {}, {}});
        return;
      }
      break;
    case ExchangeKind::infer: break;
  }
  if (!exchange->body) {
    return finish_exchange(exchange, fail(Situation::bad_framing,
                                          "a unary call ended without a message"));
  }
  BodyRef body = std::move(exchange->body);
  if (exchange->kind == ExchangeKind::infer) return begin_call(exchange, std::move(body));
  on_method_message(exchange, std::move(body));
}

void Loop::on_closed(Exchange* exchange, bool by_peer) {
  exchange->stream = nullptr;
  if (exchange->kind == ExchangeKind::method) {
    method_exchanges_.erase(exchange->id);
    if (!exchange->is_finished && by_peer) {
      core_->methods.push({exchange->id, exchange->method, ENGINE_EVENT_CANCELLED, {}, {}});
      method_codes_[exchange->method][static_cast<unsigned>(Code::cancelled)].add(1);
    }
  }
  exchange->is_finished = true;
  exchange->body = BodyRef();
  if (exchange->calls.empty()) return release_exchange(exchange);
  // The last call to be released releases the exchange.
  const std::vector<Call*> calls = exchange->calls;
  for (Call* call : calls) cancel_call(call);
}

void Loop::on_method_message(Exchange* exchange, BodyRef body) {
  MethodEvent event{exchange->id, exchange->method, ENGINE_EVENT_MESSAGE, {}, {}};
  event.message = std::string(body.view());
  size_t count = 0;
  const HeaderField* fields = exchange->metadata(&count);
  for (size_t i = 0; i < count; ++i) {
    event.metadata.append(fields[i].name).push_back('\0');
    event.metadata.append(fields[i].value).push_back('\0');
  }
  if (!core_->methods.push(std::move(event))) {
    finish_exchange(exchange, fail(Situation::overload, "too many calls of this method wait"));
  }
}

void Loop::on_reply(MethodReply* reply) {
  const auto found = method_exchanges_.find(reply->exchange);
  if (found == method_exchanges_.end() || found->second->is_finished) return;
  Exchange* exchange = found->second;
  const Trailers trailers{reply->code, reply->detail, kNoPushback, nullptr, 0};
  if (exchange->local != nullptr) {
    if (reply->has_message) exchange->local->message.assign(reply->frame.view().substr(5));
    if (!reply->is_end) return;
    exchange->is_finished = true;
    method_codes_[exchange->method][static_cast<unsigned>(reply->code)].add(1);
    method_exchanges_.erase(found);
    finish_local(exchange, trailers, exchange->local->message);
    release_exchange(exchange);
    return;
  }
  GrpcConn& grpc = exchange->connection->grpc;
  mark_dirty(exchange->connection);
  const bool is_whole =
      reply->has_message && reply->is_end && !core_->methods.info(exchange->method).is_streaming;
  if (is_whole && reply->code == Code::ok) {
    grpc.respond(exchange->stream, std::move(reply->frame), trailers);
  } else {
    if (reply->has_message) grpc.send_message(exchange->stream, std::move(reply->frame));
    if (reply->is_end) grpc.finish(exchange->stream, trailers);
  }
  if (reply->is_end) {
    exchange->is_finished = true;
    method_codes_[exchange->method][static_cast<unsigned>(reply->code)].add(1);
  }
}

void Loop::begin_local(LocalCall* local) {
  Exchange* exchange = make_exchange();
  exchange->local = local;
  exchange->timeout_ns = local->timeout_ns;
  const int method = core_->methods.find(local->path, ENGINE_DATA | ENGINE_ADMIN);
  if (local->path == kInferPath) {
    exchange->kind = ExchangeKind::infer;
  } else if (method >= 0) {
    exchange->kind = ExchangeKind::method;
    exchange->method = static_cast<uint32_t>(method);
    exchange->id = (uint64_t{index_} << 48) | next_exchange_++;
    method_exchanges_[exchange->id] = exchange;
  } else {
    finish_exchange(exchange, fail(Situation::unknown_method,
                                   "unknown method " + quoted(local->path)));
    return release_exchange(exchange);
  }
  exchange->body = local->body;
  on_half_closed(exchange);
  if (exchange->is_finished && exchange->calls.empty()) release_exchange(exchange);
}

// -- one inference ----------------------------------------------------------------------

void Loop::begin_call(Exchange* exchange, BodyRef body) {
  Call* call = make_call();
  call->exchange = exchange;
  exchange->calls.push_back(call);
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
  if (call->exchange->calls.size() > core_->options.stream_calls_max) {
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
  if (unit.source == FH_UNIT_NONE) wanted.random = draw_random();
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
      return fail(Situation::refused_pin,
                  name + " version " + quoted(request.model_version) + " is disabled");
  }
  core_->kernel->count(call->table->routes[call->decision.cell], &call->decision);
  if ((model.flags & FH_MODEL_PREDICTION_ID) != 0 && !table.keys.empty()) {
    call->unit_tag = table.keys[0].tag_unit(unit.bytes);
  }
  call->assigned = model.variant_first + call->decision.variant;
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
  const uint64_t rows = std::max<uint64_t>(attempt.binding.rows, 1);
  const int64_t run_ns = target.version->predicted_ns(rows);
  const fh_model& model = call->table->live->view.models[call->model];
  const int64_t wait_ns = core_->executors->predicted_wait_ns(*target.version) + turn_load_ns_;
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
  if (target.pending.empty()) due_.push_back({call->table, call->model, variant});
  target.pending.push_back(&attempt);
  // A batch shares most of what a run costs, so rows behind the first weigh little.
  turn_load_ns_ += target.pending.size() == 1 ? run_ns : run_ns / 8;
  return {};
}

void Loop::run_pending() {
  // Batches that run here may fail and start fallbacks, which append to due_.
  for (size_t i = 0; i < due_.size(); ++i) {
    const Due due = due_[i];
    LoopVariant& variant = due.table->variants[due.variant];
    while (!variant.pending.empty()) {
      Batch* batch = make_batch();
      batch->rows = form_batch(*variant.version, &variant.pending, &batch->attempts);
      place_batch(&variant, due.model, batch);
    }
  }
  due_.clear();
}

bool Loop::may_run_here(const LoopTable& table, uint32_t model, const Batch& batch) const {
  if (batch.version->predicted_ns(batch.rows) > core_->options.executor.loop_run_ns) {
    return false;
  }
  // Compared like with like: all variants a request may be given run in the same place, so
  // one that has not proved itself keeps all of them on the executors.
  for (const uint32_t index : table.live->served_together[model]) {
    const Version* version = table.variants[index].version;
    if (!version->may_run_on_loop || !version->is_proved()) return false;
  }
  return batch.version->may_run_on_loop && batch.version->is_proved();
}

void Loop::place_batch(LoopVariant* variant, uint32_t model, Batch* batch) {
  LoopTable* table = static_cast<Call*>(batch->attempts[0]->owner)->table;
  batch->version = variant->version;
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
  if (may_run_here(*table, model, *batch)) {
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
  if (core_->executors->submit(batch, now_ns_)) return;
  for (Attempt* attempt : batch->attempts) {
    attempt->status = fail(Situation::overload, "the queue of the model is full");
  }
  finish_batch(batch);
}

void Loop::finish_batch(Batch* batch) {
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

void Loop::finish_attempt(Call* call, unsigned which, const Batch& batch) {
  Attempt& attempt = call->attempts[which];
  LoopVariant& variant = call->table->variants[call->variants[which]];
  const fh_model& model = call->table->live->view.models[call->model];
  Judgement judgement;
  bool has_failed = false;
  if (attempt.status.ok()) {
    judgement = judge_answer(*call->table->live, model, attempt);
    if (judgement.is_valid) {
      variant.cells->breaker.succeeded();
    } else {
      has_failed = true;
      variant.cells->invalid.add(1);
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

// -- fallback and time ------------------------------------------------------------------

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
    if (call->batches[which] != nullptr) {
      call->batches[which]->waiting.fetch_sub(1, std::memory_order_relaxed);
    }
  }
}

void Loop::cancel_call(Call* call) {
  if (call->is_answered) return;
  VariantCells* cells = cells_of(*call);
  cells->cancelled.add(1);
  settle(call, Code::cancelled);
}

}  // namespace router
