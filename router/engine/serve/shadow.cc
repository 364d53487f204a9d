// A loop's part in shadows: which requests they take, when they are handed over, and what
// is counted of them. Nothing here runs before the turn's answers are written.
#include "serve/shadow.h"

#include <algorithm>

#include "serve/loop.h"

namespace router {

ByteView shadow_body(const Attempt& attempt) {
  return static_cast<const ShadowWork*>(attempt.owner)->of->body.view();
}

// Decided before anything is known of the answer, so that neither latency nor outcome
// chooses what is compared.
void Loop::take_shadows(Call* call, const fh_request& request) {
  const LiveTable& table = *call->table->live;
  const EngineOptions& options = core_->options;
  const uint64_t bytes = call->body.view().size();
  uint32_t left = core_->kernel->shadows(&table.view, &request, &call->decision);
  for (; left != 0; left &= left - 1) {
    const uint32_t at = table.view.models[call->model].shadow_first +
                        static_cast<uint32_t>(__builtin_ctz(left));
    const LiveShadow& shadow = table.shadows[at];
    ShadowCells& cells = *shadow.entry->loops[index_];
    cells.sampled.add(1);
    ShadowDrop why = ShadowDrop::count;
    if (is_draining_) {
      why = ShadowDrop::draining;
    } else if (cells.waiting.load(std::memory_order_relaxed) >= options.shadow_queue) {
      why = ShadowDrop::full;
    } else if (shadow.entry->is_stuck.load(std::memory_order_relaxed)) {
      why = ShadowDrop::stuck;
    } else if (shadow_bytes_ + bytes > options.shadow_bytes_max / options.loops) {
      why = ShadowDrop::memory;
    }
    if (why != ShadowDrop::count) {
      cells.dropped[static_cast<unsigned>(why)].add(1);
      continue;
    }
    if (call->shadowed == nullptr) {
      if (free_shadowed_.empty()) {
        shadowed_store_.push_back(std::make_unique<Shadowed>());
        free_shadowed_.push_back(shadowed_store_.back().get());
      }
      Shadowed* made = call->shadowed = free_shadowed_.back();
      free_shadowed_.pop_back();
      made->table = call->table;
      ++call->table->references;
      made->model = call->model;
      made->bytes = bytes;
      shadow_bytes_ += bytes;
    }
    ShadowWork* work = add_shadow(call->shadowed, &shadow, false);
    work->digest = request.unit_source == FH_UNIT_NONE
                       ? 0
                       : core_->kernel->xxh64(request.unit, request.unit_length,
                                              table.view.shadows[at].seed);
  }
}

ShadowWork* Loop::add_shadow(Shadowed* of, const LiveShadow* shadow, bool is_noise) {
  if (free_works_.empty()) {
    work_store_.push_back(std::make_unique<ShadowWork>());
    free_works_.push_back(work_store_.back().get());
  }
  ShadowWork* work = free_works_.back();
  free_works_.pop_back();
  work->of = of;
  work->loop = this;
  work->shadow = shadow;
  work->version = is_noise ? shadow->stable.get() : shadow->version.get();
  work->is_noise = is_noise;
  work->has_run = work->is_sampled = work->is_chosen = false;
  work->run_ns = work->cpu_ns = 0;
  work->attempt.owner = work;
  work->attempt.request = &of->request;
  of->works.push_back(work);
  shadow->entry->loops[index_]->waiting.fetch_add(1, std::memory_order_relaxed);
  return work;
}

// The call is answered: its body, its request and its answer are the shadows' now.
void Loop::start_shadows(Call* call, unsigned served) {
  Shadowed* of = std::exchange(call->shadowed, nullptr);
  Attempt& attempt = call->attempts[served];
  of->body = call->body;
  if (call->is_out_at_all()) {
    // An executor may still read the call's.
    of->request.clear();
    [[maybe_unused]] const Status status = read_infer(of->body.view(), &of->request);
  } else {
    std::swap(of->request, call->request);
  }
  of->served = call->variants[served];
  of->answered.swap(attempt.outputs);
  of->result = std::move(attempt.result);
  uint64_t bytes = of->request.typed.size();
  for (const TensorView& output : of->answered) bytes += output.bytes.size();
  of->bytes += bytes;
  shadow_bytes_ += bytes;
  const fh_model& model = of->table->live->view.models[of->model];
  const bool is_stable = of->served == model.variant_first + model.stable;
  for (size_t i = 0, count = of->works.size(); is_stable && i < count; ++i) {
    const ShadowWork* work = of->works[i];
    const ShadowCells& cells = *work->shadow->entry->loops[index_];
    if (work->shadow->stable != nullptr &&
        cells.waiting.load(std::memory_order_relaxed) < core_->options.shadow_queue &&
        draw_random() % FH_BUCKETS < core_->options.shadow_noise_bp) {
      add_shadow(of, work->shadow, true);
    }
  }
  for (ShadowWork* work : of->works) {
    work->deadline_ns = now_ns_ + core_->options.shadow_wait_ns;
    work->attempt.deadline_ns = work->deadline_ns;
    work->attempt.status = Status{};
  }
  of->left = of->works.size();
  shadow_due_.push_back(of);
}

void Loop::forget_shadows(Call* call) {
  Shadowed* of = std::exchange(call->shadowed, nullptr);
  of->left = of->works.size();
  for (size_t i = 0, count = of->left; i < count; ++i) {
    ShadowWork* work = of->works[i];
    work->outcome = ShadowOutcome::dropped;
    work->why = ShadowDrop::unanswered;
    finish_shadow(work);
  }
}

void Loop::send_shadows() {
  for (Shadowed* of : shadow_due_) {
    for (ShadowWork* work : of->works) {
      if (work->version->upstream == nullptr) {
        core_->lanes->push(work);
        continue;
      }
      Attempt& attempt = work->attempt;
      attempt.status = router::bind(work->version->signature, of->request.model_name, of->request,
                            &attempt.binding);
      if (!attempt.status.ok()) {
        work->version->note_failure(attempt.status.message);
        work->outcome = ShadowOutcome::failed;
        give_back(work);
        wake();
        continue;
      }
      Batch* batch = &work->batch;
      batch->version = work->version;
      batch->attempts.assign(1, &attempt);
      batch->rows = attempt.binding.rows;
      batch->deadline_ns = work->deadline_ns;
      batch->waiting.store(1, std::memory_order_relaxed);
      batch->was_terminated.store(false, std::memory_order_relaxed);
      batch->is_shadow = true;
      batch->loop = this;
      shadow_sent_.push_back(work);
      upstreams_->send(batch, monotonic_ns());
    }
  }
  shadow_due_.clear();
  core_->lanes->wake();
}

// Another server has answered. Lanes compare: that may be long work too.
void Loop::finish_sent_shadow(Batch* batch) {
  auto* work = static_cast<ShadowWork*>(batch->attempts[0]->owner);
  shadow_sent_.erase(std::find(shadow_sent_.begin(), shadow_sent_.end(), work));
  work->run_ns = batch->finished_ns - batch->started_ns;
  work->outcome = ShadowOutcome::failed;
  if (!work->attempt.status.ok()) return finish_shadow(work);
  work->has_run = true;
  core_->lanes->push(work);
  core_->lanes->wake();
}

void Loop::cancel_late_shadows() {
  for (ShadowWork* work : shadow_sent_) {
    if (work->deadline_ns <= now_ns_) upstreams_->cancel(&work->batch, true);
  }
}

void Loop::give_back(ShadowWork* work) {
  work->next = returned_.load(std::memory_order_relaxed);
  while (!returned_.compare_exchange_weak(work->next, work, std::memory_order_release,
                                          std::memory_order_relaxed)) {
  }
}

void Loop::finish_shadows() {
  ShadowWork* work = returned_.exchange(nullptr, std::memory_order_acquire);
  while (work != nullptr) {
    ShadowWork* next = work->next;
    finish_shadow(work);
    work = next;
  }
}

void Loop::finish_shadow(ShadowWork* work) {
  ShadowEntry& entry = *work->shadow->entry;
  ShadowCells& cells = *entry.loops[index_];
  if (work->outcome == ShadowOutcome::paired) {
    (work->is_noise ? cells.noise : cells.pairs).add(entry.kind, work->compared);
  }
  if (!work->is_noise) {
    if (work->outcome == ShadowOutcome::failed) cells.failed.add(1);
    if (work->outcome == ShadowOutcome::dropped) {
      cells.dropped[static_cast<unsigned>(work->why)].add(1);
    } else {
      cells.run.observe(work->run_ns);
      cells.cpu_ns.add(static_cast<uint64_t>(work->cpu_ns));
    }
  }
  if (work->is_sampled) {
    tape().begin() = std::move(work->sample);
    tape().end(Recorded::shadow_pair);
  }
  release_shadow(work);
}

void Loop::release_shadow(ShadowWork* work) {
  Shadowed* of = work->of;
  work->shadow->entry->loops[index_]->waiting.fetch_sub(1, std::memory_order_relaxed);
  work->attempt.outputs.clear();
  work->attempt.result = ResultRef();
  free_works_.push_back(work);
  if (--of->left != 0) return;
  shadow_bytes_ -= of->bytes;
  of->works.clear();
  of->answered.clear();
  of->result = ResultRef();
  of->body = BodyRef();
  free_shadowed_.push_back(of);
  release_table(std::exchange(of->table, nullptr));
}

}  // namespace router
