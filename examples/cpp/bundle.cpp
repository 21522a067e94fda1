#include "bundle.hpp"

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>

#include <openssl/evp.h>
#include <zip.h>

namespace {

// What this program does; a manifest that asks for something else is refused.
const std::map<std::string, std::string> known = {
    {"layout", "NCHW"},
    {"dtype", "float32"},
    {"interpolation", "bilinear, half-pixel centers, no antialiasing, edges repeated"},
    {"order", "divide by pixel_max, pad, resize to size, subtract mean, divide by std"},
};

std::string sha256(const std::vector<unsigned char>& content) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    if (!EVP_Digest(content.data(), content.size(), digest, &length, EVP_sha256(), nullptr)) {
        throw std::runtime_error("no SHA-256");
    }
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
        text += "0123456789abcdef"[digest[i] / 16];
        text += "0123456789abcdef"[digest[i] % 16];
    }
    return text;
}

void check_files(const std::filesystem::path& folder) {
    const auto content = read_file(folder / "SHA256SUMS");
    std::istringstream sums(std::string(content.begin(), content.end()));
    std::map<std::string, std::string> hashes = {{"manifest.json", ""}, {"model.onnx", ""}, {"vectors.npz", ""}};
    for (std::string line; std::getline(sums, line);) {
        if (line.size() <= 66) throw std::runtime_error("SHA256SUMS has a line that is no hash and a name");
        hashes[line.substr(66)] = line.substr(0, 64);
    }
    for (const auto& [name, hash] : hashes) {
        if (sha256(read_file(folder / name)) != hash) {
            throw std::runtime_error(name + " was altered: its hash is not that of SHA256SUMS");
        }
    }
}

std::vector<char> unzip(zip_t* archive, const char* name) {
    zip_stat_t entry;
    const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(zip_fopen(archive, name, 0), zip_fclose);
    if (!file || zip_stat(archive, name, 0, &entry) != 0) {
        throw std::runtime_error(std::string("vectors.npz has no ") + name);
    }
    std::vector<char> content(entry.size);
    if (zip_fread(file.get(), content.data(), content.size()) != static_cast<zip_int64_t>(content.size())) {
        throw std::runtime_error("vectors.npz is damaged");
    }
    return content;
}

// Reads an array of float32 in NumPy's format, whose shape but for the first size is known.
Array array_of(const std::vector<char>& npy, const nlohmann::json& shape) {
    Array array;
    array.size = 1;
    std::string sizes;
    for (std::size_t i = 1; i < shape.size(); ++i) {
        array.size *= shape[i].get<std::size_t>();
        sizes += ", " + shape[i].dump();
    }
    if (npy.size() < 10) throw std::runtime_error("vectors.npz holds no array");
    const std::size_t start = 10 + static_cast<unsigned char>(npy[8]) + 256 * static_cast<unsigned char>(npy[9]);
    const std::string header(npy.begin() + 10, npy.begin() + std::min(start, npy.size()));
    const std::regex expected("\\{'descr': '<f4', 'fortran_order': False, 'shape': \\(([0-9]+)" + sizes +
                              "\\), \\} *\n");
    std::smatch found;
    if (!std::regex_match(header, found, expected)) {
        throw std::runtime_error("vectors.npz holds " + header + ", expected float32 of (any" + sizes + ")");
    }
    array.num = std::stoul(found[1]);
    array.data.resize(array.num * array.size);
    if (npy.size() - start != array.data.size() * sizeof(float)) throw std::runtime_error("vectors.npz is cut short");
    std::memcpy(array.data.data(), npy.data() + start, npy.size() - start);  // both are little-endian
    return array;
}

}  // namespace

std::vector<unsigned char> read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<unsigned char> content{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw std::runtime_error("cannot read " + path.string());
    return content;
}

Bundle open_bundle(const std::filesystem::path& folder) {
    check_files(folder);
    Bundle bundle;
    bundle.folder = folder;
    bundle.manifest = nlohmann::json::parse(read_file(folder / "manifest.json"));
    const auto& manifest = bundle.manifest;
    if (manifest.at("schema") != 3) throw std::runtime_error("manifest.json has another schema than 3");
    for (const auto& [key, value] : known) {
        if (manifest.at("preprocessing").at(key) != value) {
            throw std::runtime_error("manifest.json has another " + key + " than this program knows");
        }
    }
    const std::unique_ptr<zip_t, void (*)(zip_t*)> archive(
        zip_open((folder / "vectors.npz").c_str(), ZIP_RDONLY, nullptr), zip_discard);
    if (!archive) throw std::runtime_error("vectors.npz is no archive");
    bundle.inputs = array_of(unzip(archive.get(), "inputs.npy"), manifest.at("inputs").at(0).at("shape"));
    bundle.outputs = array_of(unzip(archive.get(), "outputs.npy"), manifest.at("outputs").at(0).at("shape"));
    if (bundle.inputs.num != bundle.outputs.num || bundle.inputs.num == 0) {
        throw std::runtime_error("vectors.npz has no output for each input");
    }
    return bundle;
}
