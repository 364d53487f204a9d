#include "wire/oip_read.h"

#include <algorithm>

#include "wire/protobuf.h"

namespace router {
namespace {

using namespace protobuf;

// Fields of InferTensorContents, and the bytes an element of each takes in `typed`.
constexpr uint32_t kFp32Field = 6, kFp64Field = 7, kStringsField = 8;
struct ContentsRow {
  const char* name;
  uint32_t width;
};
constexpr ContentsRow kContents[] = {
    {"", 0},                {"bool_contents", 1},   {"int_contents", 4},
    {"int64_contents", 8},  {"uint_contents", 4},   {"uint64_contents", 8},
    {"fp32_contents", 4},   {"fp64_contents", 8},   {"bytes_contents", 0}};

// The field of a datatype's typed contents, in the order of DataType. FP16 and BF16 have
// none and must be sent raw.
uint32_t field_of(DataType type) {
  constexpr uint8_t kFields[] = {0, 1, 4, 4, 4, 5, 2, 2, 2, 3, 0, 0, 6, 7, 8};
  return kFields[static_cast<unsigned>(type)];
}

std::string as_text(uint64_t number) { return std::to_string(number); }
std::string_view as_text(std::string_view text) { return text; }

template <typename... Parts>
Status bad(const Parts&... parts) {
  std::string message;
  (message.append(as_text(parts)), ...);
  return fail(Situation::bad_input, std::move(message));
}

// ---- The first pass: bytes to fields. False stops it: either the bytes are not the
// message, or a list has grown one longer than its limit (check_counts finds which).

bool read_integer(Cursor* in, ParamKind kind, Param* param) {
  uint64_t bits;
  if (!read_varint(in, &bits)) return false;
  param->kind = kind;
  param->integer = static_cast<int64_t>(kind == ParamKind::boolean ? bits != 0 : bits);
  return true;
}

// InferParameter, a oneof: the last member sent counts.
bool read_param_value(ByteView message, Param* param) {
  return each_field(message, [param](Cursor* in, uint32_t tag) {
    switch (tag) {
      case tag_of(1, kVarint): return read_integer(in, ParamKind::boolean, param);
      case tag_of(2, kVarint): return read_integer(in, ParamKind::integer, param);
      case tag_of(3, kBytes):
        param->kind = ParamKind::text;
        return read_text(in, &param->text);
      case tag_of(4, kFixed64):
        param->kind = ParamKind::number;
        return read_fixed(in, &param->number);
      case tag_of(5, kVarint):
        return read_integer(in, ParamKind::unsigned_integer, param);
      default: return skip_field(in, tag);
    }
  });
}

// One entry of a parameters map.
bool read_param(Cursor* from, Param* param) {
  ByteView entry;
  return read_bytes(from, &entry) && each_field(entry, [param](Cursor* in, uint32_t tag) {
    ByteView value;
    if (tag == tag_of(1, kBytes)) return read_text(in, &param->name);
    if (tag != tag_of(2, kBytes)) return skip_field(in, tag);
    return read_bytes(in, &value) && read_param_value(value, param);
  });
}

// Parameters of one tensor must be what they claim, and mean nothing to us.
bool pass_param(Cursor* in) {
  Param ignored;
  return read_param(in, &ignored);
}

// Of two entries with one name the later wins, as in any protobuf map.
bool add_param(Cursor* in, std::vector<Param>* params) {
  Param param;
  if (!read_param(in, &param)) return false;
  for (Param& other : *params) {
    if (other.name == param.name) {
      other = param;
      return true;
    }
  }
  params->push_back(param);
  return params->size() <= kParamsMax;
}

// A rank of kRankMax + 1 says that there were more dimensions than are kept.
bool read_dimension(Cursor* in, Shape* shape) {
  uint64_t value;
  if (!read_varint(in, &value)) return false;
  if (shape->rank < kRankMax) shape->dims[shape->rank] = static_cast<int64_t>(value);
  if (shape->rank <= kRankMax) ++shape->rank;
  return true;
}

bool read_dimensions(Cursor* from, Shape* shape) {
  ByteView packed;
  if (!read_bytes(from, &packed)) return false;
  for (Cursor in(packed); !in.done();)
    if (!read_dimension(&in, shape)) return false;
  return true;
}

// Stores a run of varints, each as a T; false when it does not end with the run. There is
// room: every varint ends with a byte below 0x80, and those were counted.
template <typename T>
bool read_run(Cursor in, uint8_t* to) {
  while (!in.done()) {
    uint64_t value;
    if (!read_varint(&in, &value)) return false;
    T element = static_cast<T>(value);  // of a bool: whether it is not zero
    std::memcpy(to, &element, sizeof element);
    to += sizeof element;
  }
  return true;
}

// Appends the elements of `run`: those of a packed field, or just one.
bool add_elements(uint32_t field, ByteView run, PendingInput* input, Buffer* typed) {
  uint32_t width = kContents[field].width;
  size_t count = run.size() / width;
  bool is_fixed = field == kFp32Field || field == kFp64Field;
  if (!is_fixed)
    count = static_cast<size_t>(std::count_if(
        run.begin(), run.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; }));
  input->typed_count += count;
  if (count != 0) input->typed_fields |= 1u << field;
  if (is_fixed) {
    typed->append(run);
    return run.size() % width == 0;
  }
  uint8_t* to = typed->extend(count * width);
  Cursor in(run);
  return width == 1   ? read_run<bool>(in, to)
         : width == 4 ? read_run<uint32_t>(in, to)
                      : read_run<uint64_t>(in, to);
}

bool add_string(Cursor* in, PendingInput* input, Buffer* typed) {
  ByteView bytes;
  if (!read_bytes(in, &bytes)) return false;
  uint32_t length = static_cast<uint32_t>(bytes.size());
  typed->append(&length, sizeof length);
  typed->append(bytes);
  input->typed_count += 1;
  input->typed_fields |= 1u << kStringsField;
  return true;
}

// InferTensorContents. A field of ours is packed or not; one that comes again goes on
// where the last one ended.
bool read_contents(ByteView message, PendingInput* input, Buffer* typed) {
  return each_field(message, [input, typed](Cursor* in, uint32_t tag) {
    uint32_t field = tag >> 3;
    ByteView run;
    if (tag == tag_of(kStringsField, kBytes)) return add_string(in, input, typed);
    if (field < kStringsField && (tag & 7) == kBytes)
      return read_bytes(in, &run) && add_elements(field, run, input, typed);
    const uint8_t* start = in->at;
    if (!skip_field(in, tag)) return false;
    uint32_t single = field == kFp32Field   ? kFixed32
                      : field == kFp64Field ? kFixed64
                                            : kVarint;
    if (field >= kStringsField || (tag & 7) != single) return true;
    run = ByteView(reinterpret_cast<const char*>(start),
                   static_cast<size_t>(in->at - start));
    return add_elements(field, run, input, typed);
  });
}

bool read_input(ByteView message, InferRequest* out) {
  TensorView* input = &out->inputs.emplace_back();
  PendingInput* pending = &out->pending.emplace_back();
  pending->typed_start = out->typed.size();
  if (out->inputs.size() > kTensorsMax) return false;
  return each_field(message, [=](Cursor* in, uint32_t tag) {
    ByteView contents;
    switch (tag) {
      case tag_of(1, kBytes): return read_text(in, &input->name);
      case tag_of(2, kBytes): return read_text(in, &pending->datatype);
      case tag_of(3, kBytes): return read_dimensions(in, &input->shape);
      case tag_of(3, kVarint): return read_dimension(in, &input->shape);
      case tag_of(4, kBytes): return pass_param(in);
      case tag_of(5, kBytes):
        pending->has_contents = true;
        return read_bytes(in, &contents) && read_contents(contents, pending, &out->typed);
      default: return skip_field(in, tag);
    }
  });
}

bool read_output(ByteView message, InferRequest* out) {
  std::string_view* name = &out->outputs.emplace_back();
  if (out->outputs.size() > kTensorsMax) return false;
  return each_field(message, [name](Cursor* in, uint32_t tag) {
    if (tag == tag_of(1, kBytes)) return read_text(in, name);
    return tag == tag_of(2, kBytes) ? pass_param(in) : skip_field(in, tag);
  });
}

bool read_request(ByteView message, InferRequest* out) {
  return each_field(message, [out](Cursor* in, uint32_t tag) {
    ByteView bytes;
    switch (tag) {
      case tag_of(1, kBytes): return read_text(in, &out->model_name);
      case tag_of(2, kBytes): return read_text(in, &out->model_version);
      case tag_of(3, kBytes): return read_text(in, &out->id);
      case tag_of(4, kBytes): return add_param(in, &out->params);
      case tag_of(5, kBytes): return read_bytes(in, &bytes) && read_input(bytes, out);
      case tag_of(6, kBytes): return read_bytes(in, &bytes) && read_output(bytes, out);
      case tag_of(7, kBytes):
        if (!read_bytes(in, &bytes)) return false;
        out->raw.push_back(bytes);
        return out->raw.size() <= kTensorsMax;
      default: return skip_field(in, tag);
    }
  });
}

bool read_response(ByteView message, InferRequest* out) {
  return each_field(message, [out](Cursor* in, uint32_t tag) {
    ByteView bytes;
    switch (tag) {
      case tag_of(1, kBytes): return read_text(in, &out->model_name);
      case tag_of(2, kBytes): return read_text(in, &out->model_version);
      case tag_of(3, kBytes): return read_text(in, &out->id);
      case tag_of(4, kBytes): return add_param(in, &out->params);
      case tag_of(5, kBytes): return read_bytes(in, &bytes) && read_input(bytes, out);
      case tag_of(6, kBytes):
        if (!read_bytes(in, &bytes)) return false;
        out->raw.push_back(bytes);
        return out->raw.size() <= kTensorsMax;
      default: return skip_field(in, tag);
    }
  });
}

// ---- The second pass: what the fields say.

// The first of `count` names that is there before too, or `count`. A filter of 256 bits
// answers for almost every name; only one whose bit is taken is compared with the others.
template <typename NameOf>
size_t find_twin(size_t count, NameOf name_of) {
  uint64_t taken[4] = {};
  for (size_t i = 0; i < count; ++i) {
    std::string_view name = name_of(i);
    // Names of one model differ at their ends if anywhere.
    uint64_t tail = 0;
    if (name.size() >= sizeof tail)
      std::memcpy(&tail, name.data() + name.size() - sizeof tail, sizeof tail);
    else
      for (char c : name) tail = tail << 8 | static_cast<uint8_t>(c);
    uint64_t place = tail * 0x9E3779B97F4A7C15u >> 56, bit = uint64_t{1} << (place & 63);
    if ((taken[place >> 6] & bit) != 0)
      for (size_t j = 0; j < i; ++j)
        if (name_of(j) == name) return i;
    taken[place >> 6] |= bit;
  }
  return count;
}

Status check_counts(const InferRequest& request) {
  struct List {
    const char* name;
    size_t size, max;
  };
  for (const List& list : {List{"parameters", request.params.size(), kParamsMax},
                           {"inputs", request.inputs.size(), kTensorsMax},
                           {"requested outputs", request.outputs.size(), kTensorsMax},
                           {"raw_input_contents", request.raw.size(), kTensorsMax}})
    if (list.size > list.max) return bad("too many ", list.name, ": at most ", list.max);
  return {};
}

Status check_name(const char* what, std::string_view name) {
  if (name.size() <= kNameMax) return {};
  return bad(what, " ", quoted(name), " is longer than ", kNameMax, " bytes");
}

Status check_shape(TensorView* input) {
  const Shape& shape = input->shape;
  if (shape.rank > kRankMax)
    return bad("input ", quoted(input->name), " has more than ", kRankMax, " dimensions");
  for (unsigned i = 0; i < shape.rank; ++i)
    if (shape.dims[i] < 0)
      return bad("unexpected shape for input ", quoted(input->name), ": dimension ", i,
                 " is ", std::to_string(shape.dims[i]));
  uint64_t size, width = std::max<uint64_t>(datatype_size(input->type), 1);
  if (!element_count(shape, &input->elements) ||
      !checked_mul(input->elements, width, &size))
    return bad("shape of input ", quoted(input->name), " has too many elements");
  if (input->type == DataType::bytes && input->elements > kStringsMax)
    return bad("input ", quoted(input->name), " has ", input->elements,
               " string elements, at most ", kStringsMax);
  return {};
}

Status check_input(const PendingInput& pending, TensorView* input) {
  Status status = check_name("input", input->name);
  if (!status.ok()) return status;
  input->type = datatype_from_name(pending.datatype);
  if (input->type == DataType::invalid)
    return bad("unknown datatype ", quoted(pending.datatype), " for input ",
               quoted(input->name));
  return check_shape(input);
}

Status size_mismatch(const TensorView& input, uint64_t got) {
  return bad("input byte size mismatch for input ", quoted(input.name), ": expected ",
             input.elements * datatype_size(input.type), ", got ", got);
}

Status strings_mismatch(const TensorView& input, uint64_t got) {
  return bad("unexpected number of string elements for input ", quoted(input.name),
             ": expected ", input.elements, ", got ", got);
}

// What is wrong with strings that is_valid_bytes_tensor refused.
Status describe_strings(const TensorView& input) {
  uint64_t count = 0;
  for (Cursor in(input.bytes); !in.done(); ++count) {
    uint32_t length;
    if (!read_fixed(&in, &length))
      return bad("incomplete string length indicator for input ", quoted(input.name),
                 ": expected 4 bytes, got ", in.left());
    if (length > in.left())
      return bad("incomplete string data for input ", quoted(input.name), ": expected ",
                 length, " bytes, got ", in.left());
    in.at += length;
  }
  return strings_mismatch(input, count);
}

Status take_raw(const PendingInput& pending, ByteView raw, TensorView* input) {
  if (pending.has_contents)
    return bad("contents must not be set with raw_input_contents, but input ",
               quoted(input->name), " has them");
  input->bytes = raw;
  if (input->type == DataType::bytes)
    return is_valid_bytes_tensor(raw, input->elements) ? Status{}
                                                       : describe_strings(*input);
  uint64_t expected = input->elements * datatype_size(input->type);
  return raw.size() == expected ? Status{} : size_mismatch(*input, raw.size());
}

// Typed contents must be there, in the datatype's field, and as many as the shape says.
Status check_typed(const PendingInput& pending, const TensorView& input) {
  uint32_t field = field_of(input.type);
  uint32_t strange = pending.typed_fields & ~(1u << field);
  std::string_view type = datatype_name(input.type);
  if (strange != 0 && field == 0)
    return bad("input ", quoted(input.name), " of datatype ", type,
               " must be sent in raw_input_contents");
  if (strange != 0)
    return bad("input ", quoted(input.name), " of datatype ", type, " has ",
               kContents[__builtin_ctz(strange)].name, ", expected ",
               kContents[field].name);
  if (pending.typed_count == input.elements) return {};
  if (pending.typed_count == 0)
    return bad("unable to find data for input tensor ", quoted(input.name),
               " in request");
  return input.type == DataType::bytes
             ? strings_mismatch(input, pending.typed_count)
             : size_mismatch(input, pending.typed_count * datatype_size(input.type));
}

// Narrow integers keep the low bytes of what came, as in Triton: their elements move
// together in place.
template <typename T>
void narrow(uint8_t* bytes, uint64_t count) {
  for (uint64_t i = 1; i < count; ++i)
    std::memcpy(bytes + i * sizeof(T), bytes + i * sizeof(uint32_t), sizeof(T));
}

Status take_typed(InferRequest* out) {
  for (size_t i = 0; i < out->inputs.size(); ++i) {
    TensorView* input = &out->inputs[i];
    Status status = check_typed(out->pending[i], *input);
    if (!status.ok()) return status;
    bool is_last = i + 1 == out->inputs.size();
    size_t start = out->pending[i].typed_start;
    size_t end = is_last ? out->typed.size() : out->pending[i + 1].typed_start;
    uint32_t width = datatype_size(input->type);
    uint8_t* bytes = out->typed.data() + start;
    bool is_wide = width != 0 && width < kContents[field_of(input->type)].width;
    if (is_wide && width == 1) narrow<uint8_t>(bytes, input->elements);
    if (is_wide && width == 2) narrow<uint16_t>(bytes, input->elements);
    input->bytes = ByteView(reinterpret_cast<const char*>(bytes),
                            width == 0 ? end - start : input->elements * width);
  }
  return {};
}

Status take_data(InferRequest* out) {
  if (out->raw.empty()) return take_typed(out);
  if (out->raw.size() != out->inputs.size())
    return bad("unexpected number of raw_input_contents: expected ", out->inputs.size(),
               " (one for each input), got ", out->raw.size());
  for (size_t i = 0; i < out->inputs.size(); ++i) {
    Status status = take_raw(out->pending[i], out->raw[i], &out->inputs[i]);
    if (!status.ok()) return status;
  }
  return {};
}

Status check_tensors(InferRequest* out) {
  Status status;
  for (size_t i = 0; status.ok() && i < out->inputs.size(); ++i)
    status = check_input(out->pending[i], &out->inputs[i]);
  for (size_t i = 0; status.ok() && i < out->outputs.size(); ++i)
    status = check_name("requested output", out->outputs[i]);
  if (!status.ok()) return status;
  auto input_name = [out](size_t i) { return out->inputs[i].name; };
  size_t twin = find_twin(out->inputs.size(), input_name);
  if (twin != out->inputs.size())
    return bad("input ", quoted(out->inputs[twin].name), " already exists in request");
  twin = find_twin(out->outputs.size(), [out](size_t i) { return out->outputs[i]; });
  if (twin != out->outputs.size())
    return bad("output ", quoted(out->outputs[twin]), " already requested");
  return {};
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

namespace {

Status check_message(bool is_whole, const char* not_whole, InferRequest* out) {
  Status status = check_counts(*out);
  if (!status.ok()) return status;
  if (!is_whole) return fail(Situation::undecodable, not_whole);
  status = check_name("model_name", out->model_name);
  for (size_t i = 0; status.ok() && i < out->params.size(); ++i)
    status = check_name("parameter", out->params[i].name);
  if (status.ok()) status = check_tensors(out);
  return status.ok() ? take_data(out) : status;
}

// What was said of an input was an output; names, which are quoted, stay as they are.
void speak_of_outputs(std::string* message) {
  const size_t names = std::min(message->find('\''), message->size());
  std::string said = message->substr(0, names);
  for (size_t at = 0; (at = said.find("input", at)) != said.npos; at += 6) {
    said.replace(at, 5, "output");
  }
  message->replace(0, names, said);
}

}  // namespace

Status read_infer(ByteView message, InferRequest* out) {
  out->clear();
  const bool is_whole = read_request(message, out);
  return check_message(is_whole, "the message is not a valid ModelInferRequest", out);
}

Status read_infer_reply(ByteView message, InferRequest* out) {
  out->clear();
  const bool is_whole = read_response(message, out);
  // MLServer sends contents without elements beside the raw ones: nothing contradicts.
  for (PendingInput& each : out->pending) each.has_contents = each.typed_fields != 0;
  Status status =
      check_message(is_whole, "the message is not a valid ModelInferResponse", out);
  speak_of_outputs(&status.message);
  return status;
}

}  // namespace router
