#include "wire/oip_read.h"

#include "wire/protobuf.h"

namespace router {
namespace {

using protobuf::Cursor;
using protobuf::kBytes;
using protobuf::kFixed32;
using protobuf::kFixed64;
using protobuf::kVarint;
using protobuf::read_bytes;
using protobuf::read_fixed;
using protobuf::read_tag;
using protobuf::read_text;
using protobuf::read_varint;
using protobuf::skip_field;
using protobuf::tag_of;

// Field numbers of InferTensorContents.
enum Contents : uint32_t {
  kBool = 1, kInt = 2, kInt64 = 3, kUint = 4, kUint64 = 5, kFp32 = 6, kFp64 = 7,
  kStrings = 8, kContentsEnd = 9
};
constexpr const char* kContentsNames[kContentsEnd] = {
    "", "bool_contents", "int_contents", "int64_contents", "uint_contents",
    "uint64_contents", "fp32_contents", "fp64_contents", "bytes_contents"};

// The field a datatype's typed contents go in; 0: it has none and must be sent raw.
uint32_t contents_field(DataType type) {
  switch (type) {
    case DataType::boolean: return kBool;
    case DataType::uint8:
    case DataType::uint16:
    case DataType::uint32: return kUint;
    case DataType::uint64: return kUint64;
    case DataType::int8:
    case DataType::int16:
    case DataType::int32: return kInt;
    case DataType::int64: return kInt64;
    case DataType::fp32: return kFp32;
    case DataType::fp64: return kFp64;
    case DataType::bytes: return kStrings;
    case DataType::fp16:
    case DataType::bf16:
    case DataType::invalid: break;
  }
  return 0;
}

// How one element of a contents field is written when it is not packed.
uint32_t element_wire_type(uint32_t field) {
  if (field == kFp32) return kFixed32;
  return field == kFp64 ? kFixed64 : kVarint;
}

// A name as a message may carry it: bounded, and without control characters, which would
// let a client forge lines in somebody's log.
std::string quoted(std::string_view name) {
  std::string text = "'";
  size_t size = name.size();
  if (size > kNameMax) {
    size = kNameMax;
    while ((static_cast<uint8_t>(name[size]) & 0xC0) == 0x80) --size;  // whole characters
  }
  for (char c : name.substr(0, size)) {
    bool is_control = static_cast<uint8_t>(c) < 0x20 || c == 0x7F;
    text += is_control ? '?' : c;
  }
  return text + (size < name.size() ? "...'" : "'");
}

Status bad(std::string message) { return fail(Situation::bad_input, std::move(message)); }

Status check_count(const char* what, size_t count, size_t max) {
  if (count <= max) return {};
  return bad("too many " + std::string(what) + ": at most " + std::to_string(max));
}

// ---- the first pass: bytes to fields. False stops it: the bytes are not the message, or
// hold more than a limit allows, and then `count` of that thing has passed its limit.

bool read_param_value(ByteView message, Param* param) {
  for (Cursor in(message); !in.done();) {
    uint32_t tag;
    uint64_t bits;
    if (!read_tag(&in, &tag)) return false;
    switch (tag) {
      case tag_of(1, kVarint):
        if (!read_varint(&in, &bits)) return false;
        param->kind = ParamKind::boolean;
        param->integer = bits != 0;
        break;
      case tag_of(2, kVarint):
      case tag_of(5, kVarint):
        if (!read_varint(&in, &bits)) return false;
        param->kind = tag >> 3 == 2 ? ParamKind::integer : ParamKind::unsigned_integer;
        param->integer = static_cast<int64_t>(bits);
        break;
      case tag_of(3, kBytes):
        if (!read_text(&in, &param->text)) return false;
        param->kind = ParamKind::text;
        break;
      case tag_of(4, kFixed64):
        if (!read_fixed(&in, &param->number)) return false;
        param->kind = ParamKind::number;
        break;
      default:
        if (!skip_field(&in, tag)) return false;
    }
  }
  return true;
}

// One entry of a parameters map.
bool read_param(ByteView message, Param* param) {
  for (Cursor in(message); !in.done();) {
    uint32_t tag;
    ByteView value;
    if (!read_tag(&in, &tag)) return false;
    if (tag == tag_of(1, kBytes)) {
      if (!read_text(&in, &param->name)) return false;
    } else if (tag == tag_of(2, kBytes)) {
      if (!read_bytes(&in, &value) || !read_param_value(value, param)) return false;
    } else if (!skip_field(&in, tag)) {
      return false;
    }
  }
  return true;
}

// Parameters of one tensor are checked to be what they claim, and mean nothing to us.
bool pass_param(Cursor* in) {
  ByteView entry;
  Param ignored;
  return read_bytes(in, &entry) && read_param(entry, &ignored);
}

// The later of two entries with one name wins, as in any protobuf map.
bool add_param(ByteView entry, std::vector<Param>* params) {
  Param param;
  if (!read_param(entry, &param)) return false;
  for (Param& other : *params) {
    if (other.name == param.name) {
      other = param;
      return true;
    }
  }
  params->push_back(param);
  return params->size() <= kParamsMax;
}

// A shape is kept in full up to kRankMax; its rank goes on to kRankMax + 1, which says
// that there were more.
void add_dimension(uint64_t value, Shape* shape) {
  if (shape->rank < kRankMax) shape->dims[shape->rank] = static_cast<int64_t>(value);
  if (shape->rank <= kRankMax) ++shape->rank;
}

bool read_dimensions(ByteView packed, Shape* shape) {
  for (Cursor in(packed); !in.done();) {
    uint64_t value;
    if (!read_varint(&in, &value)) return false;
    add_dimension(value, shape);
  }
  return true;
}

// Counts the elements of a packed run; false when it is not whole.
bool count_packed(ByteView packed, uint32_t field, uint64_t* count) {
  uint64_t width = field == kFp32 ? 4 : field == kFp64 ? 8 : 0;
  if (width != 0) {
    *count += packed.size() / width;
    return packed.size() % width == 0;
  }
  for (Cursor in(packed); !in.done(); ++*count) {
    uint64_t value;
    if (!read_varint(&in, &value)) return false;
  }
  return true;
}

bool scan_contents(ByteView message, PendingInput* input) {
  input->has_contents = true;
  for (Cursor in(message); !in.done();) {
    uint32_t tag;
    ByteView bytes;
    if (!read_tag(&in, &tag)) return false;
    uint32_t field = tag >> 3, wire = tag & 7;
    uint64_t before = input->typed_count;
    if (field < kStrings && wire == kBytes) {
      if (!read_bytes(&in, &bytes) || !count_packed(bytes, field, &input->typed_count))
        return false;
    } else if (field == kStrings && wire == kBytes) {
      if (!read_bytes(&in, &bytes)) return false;
      ++input->typed_count;
      input->typed_bytes += 4 + bytes.size();
    } else {
      input->typed_count += field < kStrings && wire == element_wire_type(field);
      if (!skip_field(&in, tag)) return false;
    }
    if (input->typed_count != before) input->typed_fields |= 1u << field;
  }
  return true;
}

bool scan_input(PendingInput* pending, TensorView* input) {
  for (Cursor in(pending->message); !in.done();) {
    uint32_t tag;
    uint64_t value;
    ByteView bytes;
    bool is_good = read_tag(&in, &tag);
    if (!is_good) return false;
    switch (tag) {
      case tag_of(1, kBytes): is_good = read_text(&in, &input->name); break;
      case tag_of(2, kBytes): is_good = read_text(&in, &pending->datatype); break;
      case tag_of(3, kBytes):
        is_good = read_bytes(&in, &bytes) && read_dimensions(bytes, &input->shape);
        break;
      case tag_of(3, kVarint):
        is_good = read_varint(&in, &value);
        if (is_good) add_dimension(value, &input->shape);
        break;
      case tag_of(4, kBytes): is_good = pass_param(&in); break;
      case tag_of(5, kBytes):
        is_good = read_bytes(&in, &bytes) && scan_contents(bytes, pending);
        break;
      default: is_good = skip_field(&in, tag);
    }
    if (!is_good) return false;
  }
  return true;
}

bool scan_output(ByteView message, std::string_view* name) {
  for (Cursor in(message); !in.done();) {
    uint32_t tag;
    if (!read_tag(&in, &tag)) return false;
    bool is_good = tag == tag_of(1, kBytes)   ? read_text(&in, name)
                   : tag == tag_of(2, kBytes) ? pass_param(&in)
                                              : skip_field(&in, tag);
    if (!is_good) return false;
  }
  return true;
}

// A field of the request that is itself a message or a tensor's bytes.
bool scan_part(uint32_t field, ByteView bytes, InferRequest* out) {
  switch (field) {
    case 4: return add_param(bytes, &out->params);
    case 5:
      out->inputs.emplace_back();
      out->pending.emplace_back();
      out->pending.back().message = bytes;
      return out->inputs.size() <= kTensorsMax &&
             scan_input(&out->pending.back(), &out->inputs.back());
    case 6:
      out->outputs.emplace_back();
      return out->outputs.size() <= kTensorsMax && scan_output(bytes, &out->outputs.back());
    default:
      // One too many is kept, to be told apart from the right number; the rest only
      // matters in that it is there.
      if (out->raw.size() <= kTensorsMax) out->raw.push_back(bytes);
      return true;
  }
}

bool scan_request(ByteView message, InferRequest* out) {
  for (Cursor in(message); !in.done();) {
    uint32_t tag;
    ByteView bytes;
    bool is_good = read_tag(&in, &tag);
    if (!is_good) return false;
    switch (tag) {
      case tag_of(1, kBytes): is_good = read_text(&in, &out->model_name); break;
      case tag_of(2, kBytes): is_good = read_text(&in, &out->model_version); break;
      case tag_of(3, kBytes): is_good = read_text(&in, &out->id); break;
      case tag_of(4, kBytes):
      case tag_of(5, kBytes):
      case tag_of(6, kBytes):
      case tag_of(7, kBytes):
        is_good = read_bytes(&in, &bytes) && scan_part(tag >> 3, bytes, out);
        break;
      default: is_good = skip_field(&in, tag);
    }
    if (!is_good) return false;
  }
  return true;
}

// ---- the second pass: what the fields say

// Finds a name that is there twice. A filter of 256 bits answers for almost every name;
// only a name whose bit is taken is compared with those before it.
class SeenNames {
 public:
  // `name_of(i)` gives the i-th name; true when the `index`-th is one of those before it.
  template <typename NameOf>
  bool add(size_t index, NameOf name_of) {
    std::string_view name = name_of(index);
    uint64_t& word = bits_[hash(name) >> 6];
    uint64_t bit = uint64_t{1} << (hash(name) & 63);
    bool is_taken = (word & bit) != 0;
    word |= bit;
    for (size_t i = 0; is_taken && i < index; ++i)
      if (name_of(i) == name) return true;
    return false;
  }

 private:
  // Names of one model differ at their ends if anywhere.
  static uint8_t hash(std::string_view name) {
    uint64_t tail = 0;
    size_t kept = name.size() < 8 ? name.size() : 8;
    if (kept != 0) std::memcpy(&tail, name.data() + name.size() - kept, kept);
    return static_cast<uint8_t>((tail * 0x9E3779B97F4A7C15u + name.size()) >> 56);
  }
  uint64_t bits_[4] = {};
};

Status check_name(const char* what, std::string_view name) {
  if (name.size() <= kNameMax) return {};
  return bad(std::string(what) + " " + quoted(name) + " is longer than " +
             std::to_string(kNameMax) + " bytes");
}

Status check_shape(TensorView* input) {
  const Shape& shape = input->shape;
  if (shape.rank > kRankMax)
    return bad("input " + quoted(input->name) + " has more than " +
               std::to_string(kRankMax) + " dimensions");
  for (unsigned i = 0; i < shape.rank; ++i) {
    if (shape.dims[i] < 0)
      return bad("unexpected shape for input " + quoted(input->name) + ": dimension " +
                 std::to_string(i) + " is " + std::to_string(shape.dims[i]));
  }
  uint64_t size;
  uint32_t width = datatype_size(input->type);
  if (!element_count(shape, &input->elements) ||
      !checked_mul(input->elements, width == 0 ? 4 : width, &size))
    return bad("shape of input " + quoted(input->name) + " has too many elements");
  if (input->type == DataType::bytes && input->elements > kStringsMax)
    return bad("input " + quoted(input->name) + " has " + std::to_string(input->elements) +
               " string elements, at most " + std::to_string(kStringsMax));
  return {};
}

Status check_input(const PendingInput& pending, TensorView* input) {
  Status status = check_name("input", input->name);
  if (!status.ok()) return status;
  input->type = datatype_from_name(pending.datatype);
  if (input->type == DataType::invalid)
    return bad("unknown datatype " + quoted(pending.datatype) + " for input " +
               quoted(input->name));
  return check_shape(input);
}

Status size_mismatch(const TensorView& input, uint64_t expected, uint64_t got) {
  return bad("input byte size mismatch for input " + quoted(input.name) + ": expected " +
             std::to_string(expected) + ", got " + std::to_string(got));
}

// What is wrong with BYTES that is_valid_bytes_tensor refused, in Triton's words.
Status describe_strings(const TensorView& input) {
  uint64_t count = 0;
  for (Cursor in(input.bytes); !in.done(); ++count) {
    uint32_t length;
    uint64_t left = in.left();
    if (!read_fixed(&in, &length))
      return bad("incomplete string length indicator for input " + quoted(input.name) +
                 ": expected 4 bytes, got " + std::to_string(left));
    if (length > in.left())
      return bad("incomplete string data for input " + quoted(input.name) + ": expected " +
                 std::to_string(length) + " bytes, got " + std::to_string(in.left()));
    in.at += length;
  }
  return bad("unexpected number of string elements for input " + quoted(input.name) +
             ": expected " + std::to_string(input.elements) + ", got " +
             std::to_string(count));
}

Status take_raw(const PendingInput& pending, ByteView raw, TensorView* input) {
  if (pending.has_contents)
    return bad("contents must not be set with raw_input_contents, but input " +
               quoted(input->name) + " has them");
  input->bytes = raw;
  if (input->type == DataType::bytes)
    return is_valid_bytes_tensor(raw, input->elements) ? Status{} : describe_strings(*input);
  uint64_t expected = input->elements * datatype_size(input->type);
  return raw.size() == expected ? Status{} : size_mismatch(*input, expected, raw.size());
}

// Checks that the typed contents are there, in the datatype's field, and as many as the
// shape says; sets how many bytes they will take.
Status check_typed(const TensorView& input, PendingInput* pending) {
  uint32_t field = contents_field(input.type);
  uint32_t strange = pending->typed_fields & ~(1u << field);
  std::string_view type = datatype_name(input.type);
  if (strange != 0 && field == 0)
    return bad("input " + quoted(input.name) + " of datatype " + std::string(type) +
               " must be sent in raw_input_contents");
  if (strange != 0)
    return bad("input " + quoted(input.name) + " of datatype " + std::string(type) +
               " has " + kContentsNames[__builtin_ctz(strange)] + ", expected " +
               kContentsNames[field]);
  if (input.elements != 0 && pending->typed_count == 0)
    return bad("unable to find data for input tensor " + quoted(input.name) +
               " in request");
  if (input.type == DataType::bytes) {
    if (pending->typed_count == input.elements) return {};
    return bad("unexpected number of string elements for input " + quoted(input.name) +
               ": expected " + std::to_string(input.elements) + ", got " +
               std::to_string(pending->typed_count));
  }
  uint64_t width = datatype_size(input.type);
  pending->typed_bytes = pending->typed_count * width;
  if (pending->typed_count == input.elements) return {};
  return size_mismatch(input, input.elements * width, pending->typed_bytes);
}

// ---- typed contents to the raw layout. All of it was checked: nothing here can fail.

// Narrow integers keep their low bytes, as in Triton.
uint8_t* put_element(uint64_t value, DataType type, uint8_t* to) {
  if (type == DataType::boolean) value = value != 0;
  size_t width = datatype_size(type);
  std::memcpy(to, &value, width);
  return to + width;
}

uint8_t* put_packed(ByteView packed, uint32_t field, DataType type, uint8_t* to) {
  if (element_wire_type(field) != kVarint) {
    if (!packed.empty()) std::memcpy(to, packed.data(), packed.size());
    return to + packed.size();
  }
  for (Cursor in(packed); !in.done();) {
    uint64_t value = 0;
    if (!read_varint(&in, &value)) break;
    to = put_element(value, type, to);
  }
  return to;
}

uint8_t* put_contents(ByteView message, DataType type, uint8_t* to) {
  uint32_t field = contents_field(type), tag;
  ByteView bytes;
  for (Cursor in(message); !in.done() && read_tag(&in, &tag);) {
    if (tag == tag_of(field, kBytes) && read_bytes(&in, &bytes)) {
      if (field == kStrings) {
        uint32_t length = static_cast<uint32_t>(bytes.size());
        std::memcpy(to, &length, 4);
        if (length != 0) std::memcpy(to + 4, bytes.data(), length);
        to += 4 + bytes.size();
      } else {
        to = put_packed(bytes, field, type, to);
      }
    } else if (field != kStrings && tag == (field << 3 | element_wire_type(field))) {
      const uint8_t* start = in.at;
      uint64_t value = 0;
      if ((tag & 7) == kVarint && read_varint(&in, &value)) {
        to = put_element(value, type, to);
      } else if (skip_field(&in, tag)) {
        std::memcpy(to, start, static_cast<size_t>(in.at - start));
        to += in.at - start;
      }
    } else if (!skip_field(&in, tag)) {
      break;
    }
  }
  return to;
}

uint8_t* put_input(ByteView message, DataType type, uint8_t* to) {
  uint32_t tag;
  ByteView contents;
  for (Cursor in(message); !in.done() && read_tag(&in, &tag);) {
    if (tag == tag_of(5, kBytes) && read_bytes(&in, &contents))
      to = put_contents(contents, type, to);
    else if (!skip_field(&in, tag))
      break;
  }
  return to;
}

Status take_typed(InferRequest* out) {
  uint64_t total = 0;
  for (size_t i = 0; i < out->inputs.size(); ++i) {
    Status status = check_typed(out->inputs[i], &out->pending[i]);
    if (!status.ok()) return status;
    total += out->pending[i].typed_bytes;
  }
  // The room is made once, so the views below stay where they point.
  uint8_t* at = out->typed.extend(total);
  for (size_t i = 0; i < out->inputs.size(); ++i) {
    uint8_t* end = put_input(out->pending[i].message, out->inputs[i].type, at);
    ROUTER_ASSERT(static_cast<uint64_t>(end - at) == out->pending[i].typed_bytes);
    out->inputs[i].bytes =
        ByteView(reinterpret_cast<const char*>(at), out->pending[i].typed_bytes);
    at = end;
  }
  return {};
}

Status take_data(InferRequest* out) {
  if (out->raw.empty()) return take_typed(out);
  if (out->raw.size() != out->inputs.size()) {
    std::string got = out->raw.size() > kTensorsMax ? "more than " + std::to_string(kTensorsMax)
                                                    : std::to_string(out->raw.size());
    return bad("unexpected number of raw_input_contents: expected " +
               std::to_string(out->inputs.size()) + " (one for each input), got " + got);
  }
  for (size_t i = 0; i < out->inputs.size(); ++i) {
    Status status = take_raw(out->pending[i], out->raw[i], &out->inputs[i]);
    if (!status.ok()) return status;
  }
  return {};
}

Status check_inputs(InferRequest* out) {
  SeenNames seen;
  for (size_t i = 0; i < out->inputs.size(); ++i) {
    Status status = check_input(out->pending[i], &out->inputs[i]);
    if (!status.ok()) return status;
    if (seen.add(i, [out](size_t at) { return out->inputs[at].name; }))
      return bad("input " + quoted(out->inputs[i].name) + " already exists in request");
  }
  return {};
}

Status check_outputs(const InferRequest& request) {
  SeenNames seen;
  for (size_t i = 0; i < request.outputs.size(); ++i) {
    Status status = check_name("requested output", request.outputs[i]);
    if (!status.ok()) return status;
    if (seen.add(i, [&request](size_t at) { return request.outputs[at]; }))
      return bad("output " + quoted(request.outputs[i]) + " already requested");
  }
  return {};
}

Status check_counts(const InferRequest& request) {
  Status status = check_count("parameters", request.params.size(), kParamsMax);
  if (status.ok()) status = check_count("inputs", request.inputs.size(), kTensorsMax);
  if (status.ok())
    status = check_count("requested outputs", request.outputs.size(), kTensorsMax);
  return status;
}

}  // namespace

void InferRequest::clear() {
  model_name = model_version = id = {};
  params.clear();
  inputs.clear();
  outputs.clear();
  raw.clear();
  pending.clear();
  if (typed.capacity() > kTypedKept) typed = Buffer();
  typed.clear();
}

Status read_infer(ByteView message, InferRequest* out) {
  out->clear();
  bool is_whole = scan_request(message, out);
  Status status = check_counts(*out);
  if (!status.ok()) return status;
  if (!is_whole)
    return fail(Situation::undecodable, "the message is not a valid ModelInferRequest");
  status = check_name("model_name", out->model_name);
  for (size_t i = 0; status.ok() && i < out->params.size(); ++i)
    status = check_name("parameter", out->params[i].name);
  if (status.ok()) status = check_inputs(out);
  if (status.ok()) status = check_outputs(*out);
  return status.ok() ? take_data(out) : status;
}

}  // namespace router
