// What the tape keeps of a pair of answers.
#include "serve/loop.h"
#include "wire/protobuf.h"

namespace router {
namespace {

constexpr size_t kBodyMax = 64 << 10, kTensorMax = 16 << 10, kTensorsKept = 8;

// The request without `id` and `parameters`, where clients put what names somebody. It was
// read before, so every field of it ends where it should.
void copy_without_names(ByteView body, Buffer* out) {
  using namespace protobuf;
  constexpr uint32_t kId = tag_of(3, kBytes), kParameters = tag_of(4, kBytes);
  Cursor in(body);
  while (!in.done()) {
    const uint8_t* field = in.at;
    uint32_t tag = 0;
    if (!read_tag(&in, &tag) || !skip_field(&in, tag)) break;
    if (tag == kId || tag == kParameters) continue;
    out->append(field, static_cast<size_t>(in.at - field));
  }
}

void add_tensors(uint32_t field, const std::vector<TensorView>& tensors, Record* out) {
  Record item;
  for (size_t i = 0; i < std::min(tensors.size(), kTensorsKept); ++i) {
    const TensorView& tensor = tensors[i];
    uint8_t dims[kRankMax * 10];
    uint8_t* end = dims;
    for (unsigned d = 0; d < tensor.shape.rank; ++d) {
      end = protobuf::put_varint(end, static_cast<uint64_t>(tensor.shape.dims[d]));
    }
    item.clear();
    item.bytes(1, tensor.name).bytes(2, datatype_name(tensor.type));
    item.bytes(3, {reinterpret_cast<const char*>(dims), static_cast<size_t>(end - dims)});
    if (tensor.bytes.size() <= kTensorMax) item.bytes(4, tensor.bytes);
    out->bytes(field, item.view());
  }
}

}  // namespace

void record_pair(const ShadowWork& work, bool is_random, Record* out) {
  const Shadowed& of = *work.of;
  const LiveTable& table = *of.table->live;
  const fh_model& model = table.view.models[of.model];
  const fh_variant& served = table.view.variants[of.served];
  const ShadowEntry& entry = *work.shadow->entry;
  Buffer body;
  const bool is_kept = of.body.view().size() <= kBodyMax && model.unit_tensor.length == 0;
  if (is_kept) copy_without_names(of.body.view(), &body);
  out->number(1, static_cast<uint64_t>(realtime_ns() / 1'000'000));
  out->bytes(2, entry.model).bytes(3, entry.shadow);
  out->bytes(4, table.text(served.name)).number(5, served.version);
  out->bytes(6, entry.variant).number(7, entry.version);
  out->real(8, work.compared.distance).number(9, work.compared.mismatch);
  out->number(10, work.compared.agrees ? 0 : 1).number(11, is_random ? 1 : 0);
  out->fixed(12, work.digest);
  out->bytes(13, body.view()).number(14, of.body.view().size());
  add_tensors(15, of.answered, out);
  add_tensors(16, work.attempt.outputs, out);
}

}  // namespace router
